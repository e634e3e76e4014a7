// A small plot over time for each numeric field: a line for each series, in SVG.

import {counted, el, svg, timeText} from "./dom.js"

const WIDTH = 300
const HEIGHT = 110
const INSIDE = {left: 6, right: 6, top: 8, bottom: 8}
const NUMERIC = ["float", "integer", "unsigned"]
const COLOURS = 8

/** Return plots of all numeric fields of a measurement. */
export function plots(measurement) {
  const series = new Map()
  for (const row of measurement.rows) {
    const key = Object.entries(row.tags).map(([name, value]) => `${name}=${value}`).join(" ") || "no tags"
    if (!series.has(key)) series.set(key, [])
    series.get(key).push({...row, at: Number(BigInt(row.time) / 1000n) / 1000})
  }
  for (const rows of series.values()) rows.sort((one, other) => one.at - other.at)
  const fields = Object.keys(measurement.fields).filter(name => measurement.fields[name].some(type => NUMERIC.includes(type)))
  const drawn = fields.map(name => plot(name, measurement, series)).filter(Boolean)
  if (!drawn.length) return null
  const names = [...series.keys()]
  const legend = el("ul", {class: "legend"},
    names.slice(0, COLOURS).map((name, index) => el("li", {}, el("span", {class: `swatch series-${index}`}), name)),
    names.length > COLOURS ? el("li", {}, `and ${counted(names.length - COLOURS, "other", "others")}`) : null)
  return el("section", {class: "plots"}, el("h3", {}, measurement.name), el("div", {class: "figures"}, drawn), legend)
}

function plot(name, measurement, series) {
  const lines = [...series.values()].map(rows => rows
    .filter(row => row.fields[name] && NUMERIC.includes(row.fields[name][1]))
    .map(row => ({x: row.at, y: Number(row.fields[name][0]), row})))
  const all = lines.flat().filter(point => Number.isFinite(point.y))
  if (!all.length) return null
  const [left, right] = extent(all.map(point => point.x))
  const [low, high] = extent(all.map(point => point.y))
  const x = value => INSIDE.left + (right > left ? (value - left) / (right - left) : 0.5) * (WIDTH - INSIDE.left - INSIDE.right)
  const y = value => HEIGHT - INSIDE.bottom - (high > low ? (value - low) / (high - low) : 0.5) * (HEIGHT - INSIDE.top - INSIDE.bottom)
  const marks = lines.map((points, index) => {
    const places = points.map(point => `${x(point.x).toFixed(1)},${y(point.y).toFixed(1)}`)
    const colour = `series-${Math.min(index, COLOURS)}`
    const dots = points.length <= 30 ? points.map(point => svg("circle", {cx: x(point.x).toFixed(1), cy: y(point.y).toFixed(1), r: 2, class: colour},
      svg("title", {}, `${timeText(point.row.time)}: ${point.row.fields[name][0]}`))) : []
    return [svg("polyline", {points: places.join(" "), class: colour}), ...dots]
  })
  const picture = svg("svg", {viewBox: `0 0 ${WIDTH} ${HEIGHT}`, role: "img", "aria-label": `${name} over time, from ${low} to ${high}`}, marks.flat())
  return el("figure", {},
    el("figcaption", {}, el("strong", {}, name), el("span", {class: "range"}, low === high ? short(low) : `${short(low)} … ${short(high)}`)),
    picture,
    el("div", {class: "axis"}, el("span", {}, clock(left)), el("span", {}, right > left ? clock(right, left) : "")))
}

const extent = values => [values.reduce((a, b) => Math.min(a, b)), values.reduce((a, b) => Math.max(a, b))]
const short = value => String(Number(value.toPrecision(6)))
/** Return a time in milliseconds; without the day if `other` is on the same one. */
function clock(milliseconds, other) {
  const [text, before] = [milliseconds, other].map(time => {
    const date = new Date(time)
    return Number.isNaN(date.getTime()) ? "" : date.toISOString().replace("T", " ").slice(0, 19)
  })
  return text.slice(0, 10) === before.slice(0, 10) ? text.slice(11) : text
}
