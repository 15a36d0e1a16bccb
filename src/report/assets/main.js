// Which view is shown, and the choice of light or dark.

const sections = new Map([...document.querySelectorAll("section[data-view]")].map((section) => [section.dataset.view, section]));

/** Views by the first word of the address; each returns its title. */
const VIEWS = {
  "": () => ["overview", "Overview"],
  agreement: () => ["agreement", "Agreement"],
  candidates: () => ["candidates", "Candidates", once(candidatesView)],
  prompts: () => ["prompts", "Prompts", once(promptsView)],
  candidate: (id) => ["candidate", null, (section) => candidateView(section, id)],
  compare: (left, right) => ["compare", null, (section) => compareView(section, left, right)],
};

const NAVIGATION = { candidate: "candidates", compare: "prompts" };

/** Tables are made once, and keep their filters. */
function once(make) {
  return (section) => {
    if (section.childElementCount === 0) make(section);
  };
}

let shown = 0;
/** Shows the view that the address names. */
async function route(first) {
  const [name, ...rest] = location.hash.replace(/^#\/?/, "").split("/").map(decode);
  const [view, title, make] = (Object.hasOwn(VIEWS, name) ? VIEWS[name] : VIEWS[""])(...rest);
  const section = sections.get(view) ?? sections.get("overview");
  const turn = (shown += 1);
  let made;
  try {
    made = await make?.(section);
  } catch (error) {
    return fail(error);
  }
  // Another view may have been asked for meanwhile.
  if (turn !== shown) return;
  for (const other of sections.values()) other.hidden = other !== section;
  document.title = `${title ?? made} · LongReward report`;
  for (const link of document.querySelectorAll("[data-nav]")) {
    if (link.dataset.nav === (NAVIGATION[view] ?? view)) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
  document.getElementById("fault").hidden = true;
  if (first !== true) takeFocus(section);
}

/** Tells keyboards and screen readers where they are now. */
function takeFocus(section) {
  const kept = focusNext && document.getElementById(focusNext);
  focusNext = null;
  if (kept) {
    announce(document.title);
    return kept.focus();
  }
  window.scrollTo(0, 0);
  section.querySelector("h1").focus({ preventScroll: true });
}

function decode(part) {
  try {
    return decodeURIComponent(part);
  } catch {
    return part;
  }
}

function fail(error) {
  const fault = document.getElementById("fault");
  fault.textContent = typeof DecompressionStream === "undefined"
    ? "This browser is too old to unpack the page's data."
    : `This view can't be shown: ${error}`;
  fault.hidden = false;
  console.error(error);
}

const dark = window.matchMedia("(prefers-color-scheme: dark)");
const themeButton = document.getElementById("theme");

const isDark = () => (document.documentElement.dataset.theme ?? (dark.matches ? "dark" : "light")) === "dark";

/** Browsers may forbid a page on disk to keep anything; then the choice holds until it is closed. */
function kept(action) {
  try {
    return action();
  } catch {
    return null;
  }
}

function showTheme() {
  themeButton.textContent = isDark() ? "Light" : "Dark";
  themeButton.setAttribute("aria-label", isDark() ? "Switch to light colours" : "Switch to dark colours");
}

themeButton.addEventListener("click", () => {
  const theme = isDark() ? "light" : "dark";
  document.documentElement.dataset.theme = theme;
  kept(() => localStorage.setItem("longreward-theme", theme));
  showTheme();
});

const keptTheme = kept(() => localStorage.getItem("longreward-theme"));
if (keptTheme === "dark" || keptTheme === "light") document.documentElement.dataset.theme = keptTheme;
dark.addEventListener("change", showTheme);
showTheme();
themeButton.hidden = false;

document.getElementById("skip").addEventListener("click", (event) => {
  event.preventDefault();
  document.getElementById("main").focus();
});

window.addEventListener("hashchange", () => route(false));
route(true);
// Search is then ready before its first letter.
window.addEventListener("load", () => setTimeout(searchTexts, 200));
