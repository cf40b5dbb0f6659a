// Returns what is wrong with the page that it runs in, as a list of texts.
const wrong = [];
const name = (element) => `<${element.tagName.toLowerCase()} class="${element.getAttribute('class') ?? ''}">: ${(element.textContent ?? '').trim().slice(0, 40)}`;

// No part is wider than the screen, except those that scroll by themselves.
if (document.documentElement.scrollWidth > window.innerWidth) {
  const widest = [...document.querySelectorAll('body *')].find((element) =>
    element.getBoundingClientRect().right > window.innerWidth + 1 && !element.closest('.scroll, pre, .chart, .waterfall, .hidden'));
  wrong.push(`the page is ${document.documentElement.scrollWidth} pixels wide: ${widest ? name(widest) : 'no element found'}`);
}

// Text has enough contrast, by the Web Content Accessibility Guidelines, level AA.
const canvas = document.createElement('canvas').getContext('2d', { willReadFrequently: true });
const rgba = (colour) => {
  canvas.clearRect(0, 0, 1, 1);
  canvas.fillStyle = colour;
  canvas.fillRect(0, 0, 1, 1);
  return canvas.getImageData(0, 0, 1, 1).data;
};
const light = (colour) => {
  const [r, g, b] = [...rgba(colour)].map((part) => {
    const share = part / 255;
    return share <= 0.04045 ? share / 12.92 : ((share + 0.055) / 1.055) ** 2.4;
  });
  return 0.2126 * r + 0.7152 * g + 0.0722 * b;
};
const ground = (element) => {
  for (let at = element; at; at = at.parentElement) {
    const colour = getComputedStyle(at).backgroundColor;
    if (rgba(colour)[3] === 255) return colour;
  }
  return getComputedStyle(document.documentElement).colorScheme === 'dark' ? 'black' : 'white';
};
const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
let texts = 0;
while (walker.nextNode()) {
  const element = walker.currentNode.parentElement;
  if (!walker.currentNode.textContent.trim() || element.closest('.hidden, .skip, title, desc, datalist, option')) continue;
  const style = getComputedStyle(element);
  const drawn = element instanceof SVGElement ? style.fill : style.color;
  const [one, other] = [light(drawn), light(ground(element))].sort((a, b) => b - a);
  const size = parseFloat(style.fontSize);
  const needed = size >= 24 || (size >= 18.6 && style.fontWeight >= 700) ? 3 : 4.5;
  texts += 1;
  if ((one + 0.05) / (other + 0.05) < needed) wrong.push(`the contrast is ${((one + 0.05) / (other + 0.05)).toFixed(2)}: ${name(element)}`);
}
if (texts < 8) wrong.push(`only ${texts} texts were found`);

// Everything that can be used has a name, and every picture a description.
for (const element of document.querySelectorAll('a, button, summary')) {
  if (!element.textContent.trim() && !element.getAttribute('aria-label')) wrong.push(`no name: ${name(element)}`);
}
for (const field of document.querySelectorAll('input:not([type=hidden]), select')) {
  if (!field.labels.length) wrong.push(`no label: ${name(field)}`);
}
for (const picture of document.querySelectorAll('svg')) {
  const labels = (picture.getAttribute('aria-labelledby') ?? '').split(' ').map((id) => document.getElementById(id)?.textContent);
  const isNamed = picture.getAttribute('role') === 'img' && labels.length === 2 && labels.every((label) => label);
  if (!isNamed && picture.getAttribute('aria-hidden') !== 'true') wrong.push(`no description: ${name(picture)}`);
}
for (const table of document.querySelectorAll('table')) {
  if (!table.caption?.textContent) wrong.push(`no caption: ${name(table)}`);
  for (const head of table.querySelectorAll('th')) if (!head.scope) wrong.push(`no scope: ${name(head)}`);
}
for (const part of document.querySelectorAll('.scroll')) {
  if (part.tabIndex !== 0 || !part.getAttribute('aria-label')) wrong.push(`the keyboard cannot scroll: ${name(part)}`);
}

// The page says its language, has one main part, and no id twice.
if (!document.documentElement.lang) wrong.push('the language is not said');
if (document.querySelectorAll('main').length !== 1) wrong.push('there is not one main part');
if (document.querySelectorAll('h1').length !== 1) wrong.push('there is not one h1');
const ids = [...document.querySelectorAll('[id]')].map((element) => element.id);
for (const id of ids) if (ids.indexOf(id) !== ids.lastIndexOf(id)) wrong.push(`the id ${id} is there twice`);
for (const image of document.querySelectorAll('img')) if (!image.hasAttribute('alt')) wrong.push(`no alt: ${name(image)}`);

// Headings follow each other without a gap.
let level = 0;
for (const heading of document.querySelectorAll('h1, h2, h3, h4')) {
  const next = Number(heading.tagName[1]);
  if (next > level + 1) wrong.push(`after a heading of level ${level} comes ${name(heading)}`);
  level = next;
}

// What the style sheet draws is there: charts have a height, and their bars a colour.
for (const chart of document.querySelectorAll('svg.chart')) {
  if (chart.getBoundingClientRect().height < 100) wrong.push(`flat: ${name(chart)}`);
}
return wrong;
