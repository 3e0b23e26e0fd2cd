"""What must hold of a page whatever it shows: asked of a real browser."""

from typing import Any

from selenium import webdriver

_FAULTS = """
const faults = [], seen = new Set();
const visible = (e) => e.checkVisibility() && e.getBoundingClientRect().width > 1;
const colour = (text) => {
  const parts = text.match(/[\\d.]+/g).map(Number);
  return parts.length < 4 ? [...parts, 1] : parts;
};
const over = ([r, g, b, a], under) => [r, g, b].map((v, i) => v * a + under[i] * (1 - a));
const behind = (e) => {
  if (!e) return [255, 255, 255];
  return over(colour(getComputedStyle(e).backgroundColor), behind(e.parentElement));
};
const light = (rgb) => rgb.map((v) => v / 255)
  .map((v) => (v <= .04045 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4))
  .reduce((sum, v, i) => sum + v * [.2126, .7152, .0722][i], 0);
const contrast = (a, b) => {
  const [low, high] = [light(a), light(b)].sort((x, y) => x - y);
  return (high + .05) / (low + .05);
};
const check = (e, what, ink, least, ground) => {
  const found = contrast(over(colour(ink), ground), ground);
  if (found < least) faults.push(`${what} of ${e.tagName}.${e.className}: ${found.toFixed(2)}`);
};
for (const e of document.querySelectorAll("body *")) {
  if (!visible(e)) continue;
  const style = getComputedStyle(e), box = e.getBoundingClientRect();
  const field = e.matches("input, textarea, button");
  const words = [...e.childNodes].some((n) => n.nodeType === 3 && n.data.trim());
  if ((words || field) && !e.closest("[aria-disabled]")) {
    check(e, "text", style.color, 4.5, behind(e));
    const hint = getComputedStyle(e, "::placeholder").color;
    if (e.placeholder) check(e, "placeholder", hint, 4.5, behind(e));
  }
  if (field && e.type !== "checkbox" && !e.matches(".main")) {
    check(e, "edge", style.borderTopColor, 3, behind(e.parentElement));
  }
  if (box.left < -1 || box.right > innerWidth + 1) {
    faults.push(`${e.tagName}.${e.className} is cut off`);
  }
  const card = e.closest(".card");
  if (card && card !== e && !e.closest("pre, .thread, .tip")) {
    const padding = parseFloat(getComputedStyle(card).paddingRight);
    if (box.right > card.getBoundingClientRect().right - padding + 1) {
      faults.push(`${e.tagName}.${e.className} sticks out of its card`);
    }
  }
  if (field || e.matches("a")) {
    if (!e.labels?.length && !e.getAttribute("aria-label") && !e.textContent.trim()) {
      faults.push(`${e.outerHTML} has no name`);
    }
  }
}
if (document.documentElement.scrollWidth > innerWidth) faults.push("the page scrolls sideways");
return faults;
"""


def faults(browser: webdriver.Chrome) -> list[Any]:
    """Texts and edges of too little contrast (WCAG AA), what is cut off at the sides or sticks out
    of its card, and controls without a name."""
    found: list[Any] = browser.execute_script(_FAULTS)
    return found


def unreachable(browser: webdriver.Chrome) -> list[Any]:
    """Controls that cannot be scrolled to where a finger would meet them."""
    found: list[Any] = browser.execute_script(
        """return [...document.querySelectorAll("button, input, textarea, a")]
          .filter((e) => e.checkVisibility())
          .filter((e) => {
            e.scrollIntoView({ block: "center" });
            const box = e.getBoundingClientRect();
            const met = document.elementFromPoint(box.x + box.width / 2, box.y + box.height / 2);
            return met !== e && !e.contains(met);
          }).map((e) => e.outerHTML);"""
    )
    return found
