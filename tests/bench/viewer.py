"""How long the clinician's page takes from a drop to its answer, beside the service's own time."""

import statistics
from typing import Any, Final

from playwright.sync_api import sync_playwright

from tests.programs import require_program

WARM_UP: Final = 3
GOAL_MS: Final = 300

# From the drop to the second frame after the answer is in the page: by then it is on the screen.
# The service's part is from the request to the first byte of its answer; all else is the page's.
_DROP: Final = """bytes => new Promise((resolve) => {
  const data = new DataTransfer();
  data.items.add(new File([new Uint8Array(bytes)], "lesion.jpg", { type: "image/jpeg" }));
  performance.clearResourceTimings();
  const shown = new MutationObserver(() => {
    if (document.querySelector("#answer .decision ~ .origin") === null) return;
    shown.disconnect();
    requestAnimationFrame(() => requestAnimationFrame(() => {
      const ended = performance.now();
      const asked = performance
        .getEntriesByType("resource")
        .find(({ name }) => name.includes("/predict?"));
      resolve([ended - started, asked.responseStart - asked.requestStart]);
    }));
  });
  shown.observe(document.querySelector("#answer"), { childList: true, subtree: true });
  const started = performance.now();
  document.querySelector("#desk-title").dispatchEvent(
    new DragEvent("drop", { dataTransfer: data, bubbles: true, cancelable: true }),
  );
})"""


def drop_to_result(address: str, jpeg: bytes, rounds: int) -> dict[str, Any]:
    """Drop the same image again and again on a page that is otherwise empty.

    Args:
        address: Of a running service that answers the image, on this machine.
        jpeg: The image.
        rounds: How often, after a few that do not count.

    Returns:
        Medians and the 95th percentile in milliseconds: `shown` from drop to answer on the
        screen, `service` until the answer's first byte, `page` the difference in each round.
    """
    found: list[tuple[float, float]] = []
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(
            executable_path=require_program("chromium"), args=["--no-sandbox", "--disable-gpu"]
        )
        page = chromium.new_page(viewport={"width": 1440, "height": 900})
        page.goto(address)
        page.locator("#model option").nth(1).wait_for(state="attached")
        version = chromium.version
        for _ in range(rounds + WARM_UP):
            shown, service = page.evaluate(_DROP, list(jpeg))
            found.append((shown, service))
            page.click("#clear")
        chromium.close()
    shown, service = (list(times) for times in zip(*found[WARM_UP:], strict=True))
    of_page = [a - b for a, b in zip(shown, service, strict=True)]
    return {
        "chromium": version,
        "shown_p50_ms": round(statistics.median(shown), 1),
        "service_p50_ms": round(statistics.median(service), 1),
        "page_p50_ms": round(statistics.median(of_page), 1),
        "page_p95_ms": round(statistics.quantiles(of_page, n=20)[-1], 1),
        "goal_ms": GOAL_MS,
    }
