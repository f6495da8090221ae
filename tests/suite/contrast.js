// The contrast of each text with the page, as WCAG 2.2 defines it.
(() => {
  const channels = (color) => color.match(/[\d.]+/g).slice(0, 3).map((value) => value / 255);
  const linear = (value) => (value <= 0.04045 ? value / 12.92 : ((value + 0.055) / 1.055) ** 2.4);
  const luminance = (color) => {
    const [red, green, blue] = channels(color).map(linear);
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue;
  };
  const behind = luminance(getComputedStyle(document.body).backgroundColor);
  const ratios = [...document.querySelectorAll("h1, p, strong, th, td, span, caption")].map((element) => {
    const text = luminance(getComputedStyle(element).color);
    return (Math.max(text, behind) + 0.05) / (Math.min(text, behind) + 0.05);
  });
  return JSON.stringify(ratios);
})();
