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

// A figure with a slider has all its frames in the page, one of them shown: moving the slider shows another.
for (const box of document.querySelectorAll(".figure-frame[data-values]")) {
  const values = JSON.parse(box.dataset.values);
  const slider = document.createElement("div");
  slider.className = "slider";
  slider.innerHTML = '<label><span></span><input type="range" min="0" step="1"></label><output></output>';
  const [name, input, output] = ["span", "input", "output"].map((part) => slider.querySelector(part));
  name.textContent = JSON.parse(box.dataset.parameter);
  input.max = values.length - 1;
  input.value = box.dataset.first;
  const show = () => {
    output.textContent = values[input.value];
    input.setAttribute("aria-valuetext", values[input.value]);
    box.querySelectorAll("img").forEach((image, k) => (image.hidden = k >> 1 !== Number(input.value)));
  };
  input.addEventListener("input", show);
  // Hidden pictures are fetched when a hand is on the way to them.
  const fetchAll = () => box.querySelectorAll("img").forEach((image) => (image.loading = "eager"));
  for (const event of ["pointerenter", "focusin"]) slider.addEventListener(event, fetchAll, { once: true });
  show();
  box.after(slider);
}
