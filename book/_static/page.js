// What the theme leaves undone for the keyboard and the phone.

// Formulas, code, pictures and tables that are wider than the page scroll in boxes of their own: as long as they do,
// the keyboard can reach them.
const boxes = "mjx-container[display], .figure-frame, pre, .pst-scrollable-table-container";
const reach = () => {
  for (const box of document.querySelectorAll(boxes)) {
    if (box.scrollWidth > box.clientWidth) box.setAttribute("tabindex", "0");
    else box.removeAttribute("tabindex");
  }
};
addEventListener("load", () => MathJax.startup.promise.then(reach));
addEventListener("resize", reach);

// On a phone the contents are a dialog: it closes when a place is chosen.
for (const menu of document.querySelectorAll("dialog")) {
  menu.addEventListener("click", (event) => event.target.closest("a") && menu.close());
}
