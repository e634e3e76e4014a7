// Elements made of texts, never of markup: what samples contain is shown, not interpreted.

/** Return an element: `el("td", {class: "number"}, "1", child)`; a function as a property is an event listener. */
export function el(name, properties = {}, ...children) {
  const element = document.createElement(name)
  set(element, properties)
  element.append(...children.flat().filter(child => child !== null && child !== undefined))
  return element
}

export function svg(name, properties = {}, ...children) {
  const element = document.createElementNS("http://www.w3.org/2000/svg", name)
  set(element, properties)
  element.append(...children.flat())
  return element
}

function set(element, properties) {
  for (const [key, value] of Object.entries(properties)) {
    if (typeof value === "function") element.addEventListener(key, value)
    else if (value === true) element.setAttribute(key, "")
    else if (value !== false && value !== null && value !== undefined) element.setAttribute(key, value)
  }
}

export const byId = id => document.getElementById(id)

/** `1 point`, `2,000 points`. */
export const counted = (count, noun, many = `${noun}s`) => `${count.toLocaleString("en")} ${count === 1 ? noun : many}`

/** Return nanoseconds, a text of digits, as a time of day with as many digits as it has. */
export function timeText(nanoseconds) {
  const value = BigInt(nanoseconds)
  const rest = ((value % 1000000000n) + 1000000000n) % 1000000000n
  const date = new Date(Number((value - rest) / 1000000n))
  if (Number.isNaN(date.getTime())) return nanoseconds
  const fraction = rest ? `.${String(rest).padStart(9, "0").replace(/(000)+$/, "")}` : ""
  return date.toISOString().replace("T", " ").replace(".000Z", `${fraction}Z`)
}

/** Return Markdown as elements: paragraphs, lists, blocks of code, **strong** and `code`. */
export function markdown(text) {
  const root = el("div", {class: "markdown"})
  let list = null
  for (const block of text.split(/(```\n[\s\S]*?\n```)|\n/)) {
    if (block === undefined || block === "") {
      if (block === "") list = null
      continue
    }
    if (block.startsWith("```")) {
      root.append(el("pre", {}, block.slice(4, -4)))
    } else if (block.startsWith("- ")) {
      list ??= root.appendChild(el("ul"))
      list.append(el("li", {}, spans(block.slice(2))))
    } else {
      list = null
      root.append(el("p", {}, spans(block)))
    }
  }
  return root
}

function spans(text) {
  return text.split(/(\*\*[^*]+\*\*|``.+?``(?!`)|`[^`]+`)/).map(part => {
    if (part.startsWith("**")) return el("strong", {}, part.slice(2, -2))
    if (part.startsWith("``")) return el("code", {}, part.slice(2, -2).trim())
    if (part.startsWith("`") && part.length > 1) return el("code", {}, part.slice(1, -1))
    return part
  })
}
