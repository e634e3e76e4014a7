// What comes of the samples: one function for each view, from the server's answer to elements.

import {counted, el, timeText} from "./dom.js"
import {described} from "./editors.js"
import {plots} from "./plot.js"

/** The views, in the order of the tabs: a title with its number, and the content. `page` has what a click does. */
export const VIEWS = {
  points: {title: () => "Points", render: points},
  lines: {title: () => "Line protocol", render: lines},
  plots: {title: () => "Plots", render: drawings},
  series: {title: () => "Series and types", render: series},
  failures: {title: state => numbered("Failures", state.looked?.made?.counts.failures), render: failures},
  answers: {title: () => "Answers of servers", render: answers},
  problems: {title: state => numbered("Problems", state.looked?.problems.length), render: problems},
}

/** So many rows are made at first: a browser takes longer to lay out more than the server to find them. */
const FEW = 60

/** Return the first of `rows`, or all, and a button that shows the rest. */
function few(rows, state, page) {
  if (rows.length <= FEW || state.showsAll) return [rows, null]
  const more = el("button", {type: "button", click: () => page.showAll()}, `Show all ${rows.length.toLocaleString("en")}`)
  return [rows.slice(0, FEW), el("p", {class: "more"}, more)]
}

const numbered = (title, number) => (number ? `${title} (${number.toLocaleString("en")})` : title)

const note = (...text) => el("p", {class: "note"}, ...text)

function nothing(state) {
  const {looked} = state
  if (state.fault) return note(state.fault)
  if (!looked) return note("…")
  if (!looked.made) return note("The mapping has errors: they are underlined, and listed under Problems.")
  if (looked.samples.fault) return note(`The samples cannot be read: ${looked.samples.fault.message}`, looked.samples.fault.hint ? ` (${looked.samples.fault.hint})` : "")
  if (!looked.samples.count) return note("There are no samples: paste some, one message a line.")
  return null
}

const sample = (page, index) => el("button", {type: "button", class: "link", title: "show this sample", click: () => page.goToSample(index)}, String(index + 1))

// --- points ---

function points(state, page) {
  const empty = nothing(state)
  if (empty) return empty
  const {made} = state.looked
  if (!made.measurements.length) return made.lines.length ? lines(state, page) : note("No sample makes a point.")
  return el("div", {}, made.measurements.map(measurement => table(measurement, state, page)))
}

function table(measurement, state, page) {
  const [shown, button] = few(measurement.rows, state, page)
  const tags = Object.keys(measurement.tags), fields = Object.keys(measurement.fields)
  const head = el("tr", {},
    el("th", {scope: "col"}, "#"), el("th", {scope: "col"}, "time"),
    tags.map(name => el("th", {scope: "col", class: "tag"}, name, el("small", {}, "tag"))),
    fields.map(name => el("th", {scope: "col"}, name, el("small", {}, measurement.fields[name].join(", ")))))
  const rows = shown.map(row => el("tr", {},
    el("td", {class: "number"}, sample(page, row.sample)),
    el("td", {class: "time", title: row.time}, timeText(row.time)),
    tags.map(name => el("td", {class: "tag"}, row.tags[name] ?? "")),
    fields.map(name => {
      const [text, type] = row.fields[name] ?? ["", ""]
      return el("td", {class: type === "string" || type === "boolean" ? "" : "number"}, text)
    })))
  const more = measurement.points > measurement.rows.length ? `, of which the first ${measurement.rows.length.toLocaleString("en")} can be shown` : ""
  const caption = `${counted(measurement.points, "point")} in ${counted(measurement.series, "series", "series")}${more}`
  return el("section", {class: "measurement"},
    el("h3", {}, measurement.name, el("small", {}, caption)),
    el("div", {class: "scroll", tabindex: "0", role: "region", "aria-label": `points of ${measurement.name}`}, el("table", {}, el("thead", {}, head), el("tbody", {}, rows))), button)
}

// --- line protocol ---

function lines(state, page) {
  const empty = nothing(state)
  if (empty) return empty
  const {made} = state.looked
  if (!made.lines.length) return note("No sample makes a line.")
  const [chosen, button] = few(made.lines, state, page)
  const shown = chosen.map(([index, line]) => el("li", {}, sample(page, index), el("code", {}, line)))
  const more = made.counts.lines > made.lines.length ? note(`${counted(made.counts.lines - made.lines.length, "more line is", "more lines are")} not shown`) : null
  return el("div", {}, el("ol", {class: "lines"}, shown), button, more)
}

// --- plots ---

function drawings(state) {
  const empty = nothing(state)
  if (empty) return empty
  const drawn = state.looked.made.measurements.map(plots).filter(Boolean)
  return drawn.length ? el("div", {}, drawn) : note("There is no numeric field to draw.")
}

// --- series and types ---

function series(state) {
  const empty = nothing(state)
  if (empty) return empty
  const {made} = state.looked
  if (!made.measurements.length) return note("No sample makes a point.")
  return el("div", {}, made.measurements.map(each => el("section", {class: "measurement"},
    el("h3", {}, each.name, el("small", {}, `${counted(each.points, "point")} in ${counted(each.series, "series", "series")}`)),
    each.first === null ? null : note(`from ${timeText(each.first)} to ${timeText(each.last)}`),
    el("div", {class: "columns"},
      !Object.keys(each.tags).length ? note("no tags") : el("table", {class: "facts"}, el("thead", {}, el("tr", {}, el("th", {scope: "col"}, "tag"), el("th", {scope: "col"}, "values"))),
        el("tbody", {}, Object.entries(each.tags).map(([name, count]) => el("tr", {}, el("td", {}, name), el("td", {class: "number"}, count.toLocaleString("en")))))),
      el("table", {class: "facts"}, el("thead", {}, el("tr", {}, el("th", {scope: "col"}, "field"), el("th", {scope: "col"}, "type"))),
        el("tbody", {}, Object.entries(each.fields).map(([name, types]) => el("tr", {},
          el("td", {}, name), el("td", {class: types.length > 1 ? "conflict" : ""}, types.join(" and ") + (types.length > 1 ? ": servers take one type only" : ""))))))))))
}

// --- failures and problems ---

function failures(state, page) {
  const empty = nothing(state)
  if (empty) return empty
  const {made} = state.looked
  if (!made.failures.length) return note("No sample fails.")
  const [chosen, button] = few(made.failures, state, page)
  const shown = chosen.map(each => el("li", {class: "error"},
    el("span", {}, "sample ", sample(page, each.sample)),
    described(each),
    el("button", {type: "button", class: "link", click: () => page.select(each.from, each.to)}, `${each.line}:${each.column}`)))
  const more = made.counts.failures > made.failures.length ? note(`${counted(made.counts.failures - made.failures.length, "more failure is", "more failures are")} not shown`) : null
  return el("div", {}, el("ul", {class: "problems"}, shown), button, more)
}

function problems(state, page) {
  if (state.fault) return note(state.fault)
  if (!state.looked) return note("…")
  if (!state.looked.problems.length) return note("The mapping has no problems.")
  return el("ul", {class: "problems"}, state.looked.problems.map(each => el("li", {class: each.severity},
    el("button", {type: "button", class: "link", title: "show the place", click: () => page.select(each.from, each.to)}, each.line ? `${each.line}:${each.column}` : "all"),
    described(each),
    each.fix ? el("button", {type: "button", class: "fix", click: () => page.fix(each)}, each.fix.title) : null)))
}

// --- answers ---

function answers(state) {
  const empty = nothing(state)
  if (empty) return empty
  if (state.stale || !state.answers) return note("…")
  if (!state.answers.length) return note("Servers answer to points; this mapping makes messages.")
  return el("div", {}, el("div", {class: "answers"}, state.answers.map(each => el("section", {class: each.status === 204 || each.status === 200 ? "ok" : "error"},
      el("h3", {}, each.server, each.version ? el("small", {}, each.version.replace(/^v/, "")) : null),
      el("p", {class: "status"}, each.status ? `${each.status}: ${meaning(each)}` : "no line to send"),
      each.body ? el("pre", {}, pretty(each.body)) : null,
      each.failed ? note(`${counted(each.failed, "record fails", "records fail")} before anything is sent`) : null))),
    note("The simulator answers as an empty server does to one request with all lines. A server that holds other types would refuse more."))
}

function meaning(answer) {
  if (answer.status === 204 || answer.status === 200) {
    const lost = answer.lines - answer.stored
    const over = lost ? `; ${counted(lost, "line overwrites", "lines overwrite")} another one` : ""
    return `takes ${counted(answer.lines, "line")}, stores ${counted(answer.stored, "point")}${over}`
  }
  return `refuses; ${counted(answer.stored, "point")} of ${answer.lines.toLocaleString("en")} stored`
}

function pretty(text) {
  try {
    return JSON.stringify(JSON.parse(text), null, 2)
  } catch {
    return text
  }
}
