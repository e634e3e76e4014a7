// Plots over time, in SVG: lines or bars, with the values of now, or of the time under the pointer, as text beside them.

import {clock, each, el, say, svg} from "./dom.js"

const HEIGHT = 128
const INSIDE = {left: 48, right: 8, top: 8, bottom: 20}
const GAP_SECONDS = 10 // a longer time without an answer interrupts a line
const BARS = 60

export class Plot {
  #drawn = null
  #at = null // the index that is pointed at

  /** `names` are those of the series; `bars` show sums of what was counted, lines the values; `whole` has no halves on its axis. */
  constructor(title, note, names, format, {bars = false, whole = bars} = {}) {
    Object.assign(this, {title, names, format, bars, whole})
    this.values = names.map(() => el("dd", {}, "–"))
    this.when = el("span", {class: "when"})
    const legend = names.map((name, row) => el("div", {},
      svg("svg", {class: "swatch", width: 14, height: 10, "aria-hidden": "true"}, svg("path", {class: `line s${row}`, d: "M1 5h12"})),
      el("dt", {}, name), this.values[row]))
    this.grid = svg("g", {class: "gridlines"})
    this.marks = names.map((_, row) => svg("path", {class: `${bars ? "bar" : "line"} s${row}`}))
    this.cursor = svg("path", {class: "cursor"})
    this.empty = svg("text", {class: "nothing", "text-anchor": "middle"}, "no data yet")
    this.picture = svg("svg", {class: "plot", role: "img", tabindex: "0", height: HEIGHT}, this.grid, ...this.marks, this.cursor, this.empty)
    this.element = el("figure", {class: "panel"},
      el("figcaption", {}, el("h3", {}, title), this.when, el("p", {class: "note"}, note)), el("dl", {class: "legend"}, legend), this.picture)
    this.picture.addEventListener("pointermove", event => this.#point(this.#nearest(event.offsetX)))
    this.picture.addEventListener("pointerleave", () => this.#point(null))
    this.picture.addEventListener("blur", () => this.#point(null))
    this.picture.addEventListener("keydown", event => {
      const step = {ArrowLeft: -1, ArrowRight: 1}[event.key]
      if (!step || !this.#drawn) return
      event.preventDefault()
      const {times, first} = this.#drawn
      this.#point(Math.min(Math.max((this.#at ?? times.length - 1) + step, first), times.length - 1))
    })
  }

  /** Draw `rows` of values at `times` (seconds), of the last `seconds`. */
  draw(times, rows, seconds) {
    const width = Math.max(this.picture.clientWidth, 120)
    const end = times.at(-1) ?? 0
    const first = Math.max(times.findIndex(at => at >= end - seconds), 0)
    const places = {left: INSIDE.left, right: width - INSIDE.right, top: INSIDE.top, bottom: HEIGHT - INSIDE.bottom}
    const bars = this.bars ? rows.map(row => bucketed(times, row, end, seconds)) : null
    const highest = Math.max(0, ...(bars ?? rows.map(row => row.slice(first))).flat().filter(Number.isFinite))
    const top = this.whole ? 2 * nice(Math.ceil(highest / 2)) : nice(highest)
    const x = at => places.right - ((end - at) / seconds) * (places.right - places.left)
    const y = value => places.bottom - (value / top) * (places.bottom - places.top)
    this.picture.setAttribute("viewBox", `0 0 ${width} ${HEIGHT}`)
    this.#drawGrid(places, top, y, seconds)
    this.marks.forEach((mark, row) => mark.setAttribute("d", bars ? barPath(bars[row], places, y) : linePath(times, rows[row], first, x, y)))
    const isEmpty = times.length < 2
    this.empty.setAttribute("x", (places.left + places.right) / 2)
    this.empty.setAttribute("y", (places.top + places.bottom) / 2)
    this.empty.setAttribute("visibility", isEmpty ? "visible" : "hidden")
    this.#drawn = {times, rows, first, x, places, bars, bucket: at => bucketOf(times[at], end, seconds)}
    this.#show()
    const words = this.names.map((name, row) => `${name} ${this.#text(row, null)}`)
    this.picture.setAttribute("aria-label", `${this.title}, the last ${Math.round(seconds / 60)} minutes: ${words.join(", ")}; highest ${this.format(highest)}`)
  }

  /** Return the value at an index; of null the newest one, or of bars the sum. */
  #text(row, at) {
    const {rows, first, bars, bucket} = this.#drawn
    if (bars) return this.format(at === null ? rows[row].slice(first).reduce((sum, value) => sum + value, 0) : bars[row][bucket(at)])
    return this.format((at === null ? rows[row].at(-1) : rows[row][at]) ?? null)
  }

  #drawGrid(places, top, y, seconds) {
    const lines = [0, 0.5, 1].map(share => ({y: y(top * share), text: short(this.format(top * share))}))
    const ticks = [[places.left, `−${seconds / 60} min`, "start"], [places.right, "now", "end"]]
    each(this.grid, [...lines.map(line => ({...line, kind: "line"})), ...ticks.map(([x, text, anchor]) => ({x, text, anchor, kind: "tick"}))],
      item => `${item.kind}${item.anchor ?? lines.findIndex(line => line.y === item.y)}`,
      item => svg("g", {}, ...(item.kind === "line" ? [svg("path", {class: "rule"})] : []), svg("text")),
      (group, item) => {
        const text = group.lastChild
        say(text, item.text)
        if (item.kind === "line") group.firstChild.setAttribute("d", `M${places.left} ${item.y}H${places.right}`)
        text.setAttribute("x", item.kind === "line" ? places.left - 6 : item.x)
        text.setAttribute("y", item.kind === "line" ? item.y + 3.5 : HEIGHT - 5)
        text.setAttribute("text-anchor", item.kind === "line" ? "end" : item.anchor)
      })
  }

  #nearest(offset) {
    if (!this.#drawn || this.#drawn.times.length < 2) return null
    const {times, first, x} = this.#drawn
    let best = first
    for (let at = first; at < times.length; at += 1) if (Math.abs(x(times[at]) - offset) < Math.abs(x(times[best]) - offset)) best = at
    return best
  }

  #point(at) {
    this.#at = at
    if (this.#drawn) this.#show()
  }

  /** Show the values of the time that is pointed at, else the newest. */
  #show() {
    const {times, first, x, places} = this.#drawn
    if (this.#at !== null && (this.#at < first || this.#at >= times.length)) this.#at = null
    this.values.forEach((value, row) => say(value, this.#text(row, this.#at)))
    say(this.when, this.#at === null ? "" : clock(times[this.#at]))
    this.cursor.setAttribute("d", this.#at === null ? "" : `M${x(times[this.#at])} ${places.top}V${places.bottom}`)
  }
}

function linePath(times, row, first, x, y) {
  let path = ""
  let before = null
  for (let at = first; at < times.length; at += 1) {
    if (row[at] === null || row[at] === undefined) { before = null; continue }
    const isStart = before === null || times[at] - before > GAP_SECONDS
    path += `${isStart ? "M" : "L"}${x(times[at]).toFixed(1)} ${y(row[at]).toFixed(1)}${isStart ? "h0" : ""}`
    before = times[at]
  }
  return path
}

/** Return the bar that a time belongs to.  Bars are of the clock, so that one keeps its height while it moves. */
const bucketOf = (at, end, seconds) => BARS - (Math.floor((end * BARS) / seconds) - Math.floor((at * BARS) / seconds))

function bucketed(times, row, end, seconds) {
  const sums = new Array(BARS + 1).fill(0)
  times.forEach((at, index) => {
    const bucket = bucketOf(at, end, seconds)
    if (bucket >= 0 && row[index]) sums[bucket] += row[index]
  })
  return sums
}

function barPath(sums, places, y) {
  const step = (places.right - places.left) / sums.length
  return sums.map((sum, at) => sum ? `M${(places.left + at * step).toFixed(1)} ${places.bottom}V${Math.min(y(sum), places.bottom - 2).toFixed(1)}h${(step - 1).toFixed(1)}V${places.bottom}z` : "").join("")
}

/** Return a number as it is written at an axis: without zeros at its end. */
const short = text => text.replace(/(\.\d*?)0+(?= )/, "$1").replace(/\.(?= )/, "")

/** Return the end of an axis: 1, 2 or 5 times a power of ten, at least what is given. */
export function nice(highest) {
  if (!(highest > 0)) return 1
  const power = 10 ** Math.floor(Math.log10(highest))
  return [1, 2, 5, 10].find(step => step * power >= highest * 0.999) * power
}

/** Return a small line without axes, and a function that draws it. */
export function sparkline(label) {
  const line = svg("path", {class: "line s0"})
  const picture = svg("svg", {class: "spark", role: "img", "aria-label": label, height: 18, width: 110, viewBox: "0 0 110 18"}, line)
  return {picture, draw(times, row, seconds) {
    const end = times.at(-1) ?? 0
    const first = Math.max(times.findIndex(at => at >= end - seconds), 0)
    const top = Math.max(1, ...row.slice(first).filter(Number.isFinite))
    line.setAttribute("d", linePath(times, row, first, at => 109 - ((end - at) / seconds) * 108, value => 16.5 - (value / top) * 15))
  }}
}
