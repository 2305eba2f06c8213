"""The seven classes; everything in the project leans on their order."""

from app.domain.labels import CLASSES, LABELS, Malignancy


def test_order_is_the_papers() -> None:
    assert LABELS == ("akiec", "bcc", "bkl", "df", "mel", "nv", "vasc")


def test_malignancy() -> None:
    groups = {m: {c.label for c in CLASSES if c.malignancy is m} for m in Malignancy}
    assert groups == {
        Malignancy.MALIGNANT: {"bcc", "mel"},
        Malignancy.PREMALIGNANT: {"akiec"},
        Malignancy.BENIGN: {"bkl", "df", "nv", "vasc"},
    }


def test_snomed_ct_identifiers_have_a_valid_check_digit() -> None:
    codes = [c.code.concept_id for c in CLASSES if c.code]
    assert len(set(codes)) == len(codes) == 6
    assert {code: _verhoeff(code) for code in codes} == dict.fromkeys(codes, 0)


def _verhoeff(digits: str) -> int:
    """Checksum of a SNOMED CT identifier (SNOMED CT Technical Implementation Guide, 3.3)."""
    multiply = [[0] * 10 for _ in range(10)]
    for i in range(10):
        for j in range(10):
            if i < 5 and j < 5:
                multiply[i][j] = (i + j) % 5
            elif i < 5:
                multiply[i][j] = 5 + (i + j - 5) % 5
            elif j < 5:
                multiply[i][j] = 5 + (i - 5 - j) % 5
            else:
                multiply[i][j] = (i - j) % 5
    base = [1, 5, 7, 6, 2, 8, 3, 0, 9, 4]
    permute = [list(range(10))]
    for _ in range(7):
        permute.append([base[p] for p in permute[-1]])
    checksum = 0
    for position, digit in enumerate(reversed(digits)):
        checksum = multiply[checksum][permute[position % 8][int(digit)]]
    return checksum
