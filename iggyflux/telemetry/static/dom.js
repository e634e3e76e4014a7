// Elements made of texts, never of markup: whatever a name or a server's words contain is shown, not interpreted.

/** Return an element: `el("td", {class: "number"}, "1", child)`. */
export const el = (name, attributes, ...children) => filled(document.createElement(name), attributes, children)

/** Return an element of SVG. */
export const svg = (name, attributes, ...children) =>
  filled(document.createElementNS("http://www.w3.org/2000/svg", name), attributes, children)

function filled(element, attributes = {}, children) {
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value)
  element.append(...children.flat())
  return element
}

export const byId = id => document.getElementById(id)

/** Set the text of an element if it is another one, so that nothing is drawn again and no selection is lost. */
export function say(element, text) {
  if (element.textContent !== text) element.textContent = text
}

/**
 * Show one child of `parent` for each item, in their order: those that were there are kept, by `key(item)`.
 * `make(item)` returns a new element and `update(element, item)` fills it.
 */
export function each(parent, items, key, make, update) {
  const before = new Map([...parent.children].filter(child => child.key !== undefined).map(child => [child.key, child]))
  let last = null
  for (const item of items) {
    const name = key(item)
    const element = before.get(name) ?? Object.assign(make(item), {key: name})
    before.delete(name)
    const place = last ? last.nextSibling : [...parent.children].find(child => child.key !== undefined) ?? null
    if (element !== place) parent.insertBefore(element, place)
    update(element, item)
    last = element
  }
  for (const element of before.values()) element.remove()
}

// --- numbers for people ---

const units = ["", " k", " M", " G", " T"]

/** `1,234`, `12.3 k`, `1.23 M`; below 10 with one decimal if it is no integer. */
export function number(value) {
  if (value === null || value === undefined || Number.isNaN(value)) return "–"
  const size = Math.abs(value)
  if (size < 10 && !Number.isInteger(value)) return value.toFixed(size < 0.1 && size > 0 ? 2 : 1)
  if (Math.round(size) < 10_000) return Math.round(value).toLocaleString("en")
  let power = Math.min(Math.floor(Math.log10(size) / 3), units.length - 1)
  if (Number((value / 1000 ** power).toPrecision(3)) >= 1000) power = Math.min(power + 1, units.length - 1)
  const digits = (value / 1000 ** power).toPrecision(3)
  return (digits.includes("e") ? Math.round(value / 1000 ** power).toLocaleString("en") : digits) + units[power]
}

const spans = [[1e-3, 1e-6, "µs"], [1, 1e-3, "ms"], [100, 1, "s"], [6000, 60, "min"], [172_800, 3600, "h"], [Infinity, 86_400, "d"]]

/** `12 ms`, `3.4 s`, `12 min`, of seconds. */
export function span(seconds) {
  if (seconds === null || seconds === undefined || Number.isNaN(seconds)) return "–"
  if (seconds <= 0) return "0 s"
  const [, unit, name] = spans.find(([most]) => seconds < most)
  const value = seconds / unit
  return `${value < 10 ? value.toFixed(1).replace(".0", "") : Math.round(value).toLocaleString("en")} ${name}`
}

/** The time of day, of seconds since the epoch. */
export const clock = unix => new Date(unix * 1000).toLocaleTimeString("en-GB")
