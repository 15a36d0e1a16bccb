"""Opens the page of an evaluation in a real browser and looks for errors and for what does not fit on a screen.

    python3 tests/browser/eval.py scores/report.html [--shots DIR]

Needs Chromium with its driver and Selenium, as report.py beside this file.
"""

import argparse
import pathlib

from report import browser

WIDTHS = [1400, 800, 400]


def check(driver, page: pathlib.Path, width: int, dark: bool, shots: pathlib.Path | None) -> None:
    scheme = [{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}]
    driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": scheme})
    driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": False})
    driver.get(f"file://{page}")
    told = driver.get_log("browser")
    assert not told, told
    count = lambda selector: driver.execute_script("return document.querySelectorAll(arguments[0]).length", selector)
    assert count("script") == 0 and count("h1") == 1 and count("table.data tbody tr") > 0
    driver.execute_script("for (const more of document.querySelectorAll('details')) more.open = true")
    # Wide tables scroll within their own boxes; the page as a whole does not.
    assert driver.execute_script("return document.documentElement.scrollWidth") <= width, f"too wide for {width}"
    outside = driver.execute_script(
        "return [...document.querySelectorAll('main *')].filter(e => !e.closest('.scroll') && !e.closest('svg') &&"
        " e.getBoundingClientRect().right > innerWidth + 1).map(e => e.tagName + ' ' + e.textContent.slice(0, 40))"
    )
    assert not outside, outside
    colour = "return getComputedStyle(document.body)[arguments[0]]"
    assert driver.execute_script(colour, "color") != driver.execute_script(colour, "backgroundColor")
    if shots:
        shots.mkdir(parents=True, exist_ok=True)
        name = f"eval-{'dark' if dark else 'light'}-{width}"
        for part in range(3 if width == WIDTHS[0] else 1):
            driver.execute_script("scrollTo(0, arguments[0])", 860 * part)
            driver.save_screenshot(str(shots / f"{name}-{part}.png"))
    print(f"ok  {width} pixels, {'dark' if dark else 'light'}: {count('table.data tbody tr')} rows, {count('details')} parts to open")


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("page", type=pathlib.Path)
    parser.add_argument("--shots", type=pathlib.Path)
    options = parser.parse_args()
    driver = browser()
    try:
        for width in WIDTHS:
            for dark in (False, True):
                check(driver, options.page.resolve(), width, dark, options.shots)
    finally:
        driver.quit()


if __name__ == "__main__":
    main()
