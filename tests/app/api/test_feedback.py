"""Diagnoses find the one answer that they are about, or are refused."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient
from httpx2 import Response
from typer.testing import CliRunner

from app import feedback
from app.audit import AuditLog
from app.audit_chain import verify
from app.cli import main
from app.domain.errors import AnswerAmbiguousError, AnswerNotFoundError
from app.domain.heatmaps import encode_png
from app.feedback import FEEDBACK_FOLDER, find_answer
from app.main import create_app
from app.settings import Settings
from tests.conftest import PLAIN_MODEL
from tests.pictures import sharp_lesion

GIVEN = {"diagnosis": "mel", "source": "histo"}


@pytest.fixture
def audit_dir(tmp_path: Path) -> Path:
    return tmp_path / "audit"


@pytest.fixture
def audited(tiny_models: Path, audit_dir: Path) -> Iterator[TestClient]:
    settings = Settings(models_dir=tiny_models, audit_dir=audit_dir, audit_max_file_bytes=4096)
    app = create_app(settings)
    with TestClient(app, raise_server_exceptions=False, client=("192.0.2.7", 50000)) as client:
        yield client


def predict(client: TestClient, image: bytes, request_id: str = "") -> dict[str, Any]:
    headers = {"X-Request-ID": request_id} if request_id else {}
    body: dict[str, Any] = client.post("/predict", files={"image": image}, headers=headers).json()
    return body


def problem(response: Response) -> str:
    assert response.headers["content-type"] == "application/problem+json"
    return str(response.json()["type"]).removeprefix("urn:dermhybrid:problem:")


def feedback_records(audit_dir: Path) -> list[dict[str, Any]]:
    files = sorted((audit_dir / FEEDBACK_FOLDER).glob("audit-*.jsonl"))
    return [json.loads(line) for path in files for line in path.read_bytes().splitlines()]


def test_feedback_is_kept_with_the_record_of_its_answer(
    audited: TestClient, audit_dir: Path, lesion_png: bytes
) -> None:
    answers = [predict(audited, lesion_png) for _ in range(5)]  # over several files
    assert len(list(audit_dir.glob("audit-*.jsonl"))) > 1
    third = answers[2]
    response = audited.post(f"/feedback/{third['request_id']}", json=GIVEN)
    assert response.status_code == 201
    receipt, label = response.json(), third["predicted_class"]["label"]
    assert receipt["answer_sequence"] == 3
    assert (receipt["predicted_class"], receipt["agrees"]) == (label, label == "mel")
    assert "Not a medical device" in receipt["notice"]
    (record,) = feedback_records(audit_dir)
    assert (record["diagnosis"], record["source"]) == ("mel", "histo")
    assert record["request_id"] == third["request_id"]
    assert record["caller"] == "192.0.2.7"
    lines = [
        json.loads(line)
        for path in sorted(audit_dir.glob("audit-*.jsonl"))
        for line in path.read_bytes().splitlines()
    ]
    assert record["answer"] == {"sequence": 3, "hash": lines[2]["hash"]}
    assert 'feedback_total{diagnosis="mel",source="histo"} 1.0' in audited.get("/metrics").text


def test_corrections_are_all_kept(audited: TestClient, audit_dir: Path, lesion_png: bytes) -> None:
    path = f"/feedback/{predict(audited, lesion_png)['request_id']}"
    for diagnosis in ("nv", "mel"):
        given = {"diagnosis": diagnosis, "source": "clinical"}
        assert audited.post(path, json=given).status_code == 201
    assert [record["diagnosis"] for record in feedback_records(audit_dir)] == ["nv", "mel"]
    assert list(verify(audit_dir / FEEDBACK_FOLDER)) == []


def test_an_unknown_request_is_not_found(audited: TestClient, lesion_png: bytes) -> None:
    known = predict(audited, lesion_png, "case-12")["request_id"]
    for unknown in ("case-1", "case-123", "ase-12"):
        response = audited.post(f"/feedback/{unknown}", json=GIVEN)
        assert (response.status_code, problem(response)) == (404, "answer-not-found")
    response = audited.post(f"/feedback/{known}", json={**GIVEN, "index": 0})
    assert (response.status_code, problem(response)) == (404, "answer-not-found")
    assert audited.post(f"/feedback/{known}", json=GIVEN).status_code == 201


def test_an_image_of_a_batch_is_named_by_its_index(
    audited: TestClient, audit_dir: Path, lesion_png: bytes
) -> None:
    files = [("image", lesion_png), ("image", b"no image"), ("image", lesion_png)]
    headers = {"X-Request-ID": "batch-7"}
    assert audited.post("/predict/batch", files=files, headers=headers).status_code == 200
    response = audited.post("/feedback/batch-7", json=GIVEN)
    assert (response.status_code, problem(response)) == (409, "answer-ambiguous")
    assert "`index`" in response.json()["detail"]
    assert audited.post("/feedback/batch-7", json={**GIVEN, "index": 2}).status_code == 201
    assert audited.post("/feedback/batch-7", json={**GIVEN, "index": 1}).status_code == 404
    (record,) = feedback_records(audit_dir)
    assert record["index"] == 2


def test_a_request_id_that_was_used_twice_is_refused(
    audited: TestClient, audit_dir: Path, lesion_png: bytes
) -> None:
    for picture in (lesion_png, encode_png(sharp_lesion(330, 240))):
        predict(audited, picture, "visit-1")
    response = audited.post("/feedback/visit-1", json=GIVEN)
    assert (response.status_code, problem(response)) == (409, "answer-ambiguous")
    assert "used more than once" in response.json()["detail"]
    assert feedback_records(audit_dir) == []


def test_feedback_on_a_picture_that_was_answered_again_is_beside_the_newest_answer(
    audited: TestClient, audit_dir: Path, lesion_png: bytes
) -> None:
    for _ in range(2):
        predict(audited, lesion_png, "visit-2")
    assert audited.post("/feedback/visit-2", json=GIVEN).status_code == 201
    (record,) = feedback_records(audit_dir)
    assert record["answer"]["sequence"] == 2


def test_feedback_on_two_models_answers_is_ambiguous(
    audited: TestClient, lesion_png: bytes
) -> None:
    for version in (1, 2):
        audited.post(
            f"/predict?model={PLAIN_MODEL}@{version}",
            files={"image": lesion_png},
            headers={"X-Request-ID": "visit-3"},
        )
    response = audited.post("/feedback/visit-3", json=GIVEN)
    assert (response.status_code, problem(response)) == (409, "answer-ambiguous")


PATIENT = "Zzyzx-Quux"


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"[]",
        b"null",
        b"{",
        b'{"diagnosis": "mel"}',
        b'{"diagnosis": "melanoma", "source": "histo"}',
        b'{"diagnosis": "mel", "source": "guess"}',
        b'{"diagnosis": ["mel"], "source": "histo"}',
        b'{"diagnosis": "mel", "source": "histo", "index": -1}',
        b'{"diagnosis": "mel", "source": "histo", "index": 1e30}',
        b'{"diagnosis": "mel", "source": "histo", "index": true}',
        f'{{"diagnosis": "mel", "source": "histo", "{PATIENT}": "{PATIENT}"}}'.encode(),
        f'{{"diagnosis": "{PATIENT}", "source": "{PATIENT}"}}'.encode(),
        b"\xff\xfe\x00",
        b'{"diagnosis": "mel", "source": "histo", "index": ' + b"[" * 900,
    ],
)
def test_a_body_of_another_form_is_refused_without_quoting_it(
    audited: TestClient, audit_dir: Path, lesion_png: bytes, body: bytes
) -> None:
    request_id = predict(audited, lesion_png)["request_id"]
    response = audited.post(f"/feedback/{request_id}", content=body)
    assert (response.status_code, problem(response)) == (422, "invalid-request")
    assert PATIENT not in response.text
    assert feedback_records(audit_dir) == []


def test_a_long_body_is_refused(audited: TestClient) -> None:
    body = b'{"diagnosis": "mel", "source": "histo"' + b" " * 2000 + b"}"
    response = audited.post("/feedback/x", content=body)
    assert (response.status_code, problem(response)) == (413, "request-too-long")
    streamed = audited.post("/feedback/x", content=iter([body[:1000], body[1000:]]))
    assert streamed.status_code == 413


@pytest.mark.parametrize(
    "request_id", ["a" * 65, "a b", "a%22", "%2e%2e%2faudit", "ä", "%00", '"', "a*"]
)
def test_a_request_id_of_another_form_is_refused(audited: TestClient, request_id: str) -> None:
    assert audited.post(f"/feedback/{request_id}", json=GIVEN).status_code in (404, 422)


def test_without_an_audit_log_there_is_no_feedback(client: TestClient) -> None:
    assert client.post("/feedback/x", json=GIVEN).status_code == 404
    assert not any(
        path.startswith("/feedback") for path in client.get("/openapi.json").json()["paths"]
    )


def test_what_cannot_be_written_is_said(
    audited: TestClient, lesion_png: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    request_id = predict(audited, lesion_png)["request_id"]

    def full(_file: int, _data: object) -> int:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as disk:
        disk.setattr("app.audit.os.write", full)
        response = audited.post(f"/feedback/{request_id}", json=GIVEN)
    assert (response.status_code, problem(response)) == (503, "audit-unavailable")
    assert "feedback" in response.json()["detail"]
    assert audited.post(f"/feedback/{request_id}", json=GIVEN).status_code == 201


def test_changed_feedback_is_found(audited: TestClient, audit_dir: Path, lesion_png: bytes) -> None:
    request_id = predict(audited, lesion_png)["request_id"]
    for _ in range(3):
        audited.post(f"/feedback/{request_id}", json=GIVEN)
    whole = CliRunner().invoke(main, ["audit", "verify", str(audit_dir)])
    assert whole.exit_code == 0
    assert "feedback: intact up to record 3" in whole.output
    path = audit_dir / FEEDBACK_FOLDER / "audit-000001.jsonl"
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(lines[0] + lines[1].replace(b'"mel"', b'"nv"') + lines[2])
    changed = CliRunner().invoke(main, ["audit", "verify", str(audit_dir)])
    assert changed.exit_code == 1
    assert f"{FEEDBACK_FOLDER}/audit-000001.jsonl:2: record 2 was changed" in changed.output


def write_answers(directory: Path, request_ids: list[str]) -> None:
    log = AuditLog(directory, 1 << 30)
    answer = {"predicted_class": "nv"}
    log.append(
        [
            {"request_id": name, "input_sha256": f"{number:064x}", "model": {}, "answer": answer}
            for number, name in enumerate(request_ids)
        ]
    )
    log.close()


def test_answers_are_searched_as_whole_ids_in_whole_lines(tmp_path: Path) -> None:
    write_answers(tmp_path, ["a-1", "a-11", "1", "b.1", "bx1"])
    assert [find_answer(tmp_path, name, None).sequence for name in ("a-1", "1", "b.1")] == [1, 3, 4]
    with (tmp_path / "audit-000001.jsonl").open("ab") as file:
        file.write(b'{"answer":{"predicted_class":"mel"},"request_id":"torn","sequence":6')
    with pytest.raises(AnswerNotFoundError):
        find_answer(tmp_path, "torn", None)


def test_answers_are_found_wherever_a_piece_of_the_log_ends(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = [f"r-{number}" for number in range(12)]
    write_answers(tmp_path, names)
    for size in (1, 37, 300, 301, 1000):
        monkeypatch.setattr(feedback, "PIECE_BYTES", size)
        found = [find_answer(tmp_path, name, None).sequence for name in names]
        assert found == list(range(1, 13))


def test_a_request_id_within_another_field_is_no_answer(tmp_path: Path) -> None:
    log = AuditLog(tmp_path, 1 << 30)
    log.append([{"request_id": "x", "other": {"request_id": "y"}, "answer": {}}])
    log.close()
    with pytest.raises(AnswerNotFoundError):
        find_answer(tmp_path, "y", None)


def test_an_empty_log_has_no_answer(tmp_path: Path) -> None:
    AuditLog(tmp_path, 1 << 30).close()
    with pytest.raises(AnswerNotFoundError):
        find_answer(tmp_path, "x", None)
    write_answers(tmp_path, ["x", "x"])
    with pytest.raises(AnswerAmbiguousError):
        find_answer(tmp_path, "x", None)
