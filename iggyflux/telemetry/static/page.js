// The page of a run: asks `/status` every second or two, keeps what it said, and shows it.  The token is kept by this tab.

import {byId, clock, each, el, number, say, span, svg} from "./dom.js"
import {History} from "./history.js"
import {Plot, sparkline} from "./plot.js"

const EVERY_MS = 1000
const TIMEOUT_MS = 10_000
const LATE_SECONDS = 5 // without an answer, what is shown is called old
const MOST_ROUTES = 100
const MOST_ROWS = 12
const TOKEN = "iggyflux-token"
const SPANS = [60, 120, 300, 900]
const SHARES = [0.5, 0.95, 0.99]

const marks = {starting: "○", connecting: "◌", running: "●", idle: "◐", finishing: "◔", done: "✓", interrupted: "■", stopped: "✕"}
const history = new History()
let status = null
let answered = null // when the last answer came, by the clock of the page
let fault = null // why there was none since
let chosen = null // the name of the route that the plots show; null is all
let seconds = 300

// --- asking ---

async function ask() {
  const token = sessionStorage.getItem(TOKEN)
  const headers = token === null ? {} : {authorization: `Bearer ${asBytes(token)}`}
  const response = await fetch("status", {headers, cache: "no-store", signal: AbortSignal.timeout(TIMEOUT_MS)})
  if (response.status === 401) {
    sessionStorage.removeItem(TOKEN)
    throw new Unauthorized(token === null ? "" : "This token is not the one of the run.")
  }
  if (!response.ok) throw new Error(`The run answers ${response.status}`)
  return response.json()
}

class Unauthorized extends Error {}

/** Headers hold bytes: those of UTF-8, each as a character. */
const asBytes = text => String.fromCharCode(...new TextEncoder().encode(text))

async function follow() {
  const began = performance.now()
  try {
    status = await ask()
    history.add(status)
    answered = performance.now()
    fault = null
    show()
  } catch (error) {
    if (error instanceof Unauthorized) return logIn(error.message)
    fault = error instanceof TypeError || error.name === "TimeoutError" ? "The run has ended, or cannot be reached" : error.message
  }
  showLink()
  setTimeout(follow, Math.max(EVERY_MS, 5 * (performance.now() - began)))
}

function logIn(words) {
  status = answered = null
  byId("main").hidden = true
  byId("view").hidden = true
  byId("login").hidden = false
  say(byId("login-fault"), words)
  showLink("a token is needed")
  byId("token").focus()
}

byId("login").addEventListener("submit", event => {
  event.preventDefault()
  sessionStorage.setItem(TOKEN, byId("token").value.trim())
  byId("token").value = ""
  byId("login").hidden = true
  fault = null
  follow()
})
byId("forget").addEventListener("click", () => {
  sessionStorage.removeItem(TOKEN)
  location.reload()
})
byId("span").addEventListener("change", event => { seconds = Number(event.target.value); if (status) show() })
new ResizeObserver(() => { if (status) show() }).observe(document.body)

// --- the head ---

/** Show whether the run answers, and how old the data is. */
function showLink(words) {
  const age = answered === null ? 0 : (performance.now() - answered) / 1000
  const isOld = fault !== null && (answered === null || age > LATE_SECONDS)
  const [mark, text] = words ? ["○", words]
    : isOld ? ["▲", answered === null ? "no answer" : `no answer, data ${span(Math.round(age))} old`]
    : answered === null ? ["○", "asking for the status"]
    : ["●", `live, ${clock(status.time_unix)}`]
  document.body.classList.toggle("old", isOld)
  byId("link").className = isOld ? "bad" : mark === "●" ? "good" : ""
  say(byId("link").querySelector(".mark"), mark)
  say(byId("link").querySelector(".words"), text)
  byId("notice").hidden = !isOld
  say(byId("notice"), isOld ? `${fault}${answered === null ? "." : `. What is shown is from ${clock(status.time_unix)}.`}` : "")
  const isRefused = Boolean(status?.configuration.refused)
  const bad = (status?.routes ?? []).filter(route => tone(route) !== "good").length
  document.title = isOld ? "▲ no answer – iggyflux" : bad ? `▲ ${bad} of ${status.routes.length} routes – iggyflux` : isRefused ? "▲ change refused – iggyflux" : "iggyflux"
}
setInterval(() => { if (fault !== null && byId("login").hidden) showLink() }, 1000)

// --- the body ---

const isWaiting = route => route.is_away || route.backoff_seconds !== null
const tone = route => route.state === "stopped" ? "bad"
  : isWaiting(route) || ["connecting", "interrupted"].includes(route.state) ? "warn" : "good"

/** Return what a route waits for, or where it goes. */
function reasonOf(route) {
  if (route.error) return `${route.error.code}: ${[route.error.reason, route.error.hint].filter(Boolean).join(". ")}`
  const again = route.backoff_seconds === null ? "" : `; tries again in ${span(Math.ceil(route.backoff_seconds))}`
  if (route.waiting_for) return `waits for ${route.waiting_for}${again}`
  if (again) return `waits${again}`
  const starving = route.groups.reduce((sum, group) => sum + group.starving.length, 0)
  if (starving) return `${starving} partitions of the group starve: a member holds them and does not read`
  return `${route.about.source ?? "a file"} → ${route.about.sink ?? "a file"}`
}

function show() {
  byId("main").hidden = byId("view").hidden = false
  byId("forget").hidden = sessionStorage.getItem(TOKEN) === null
  say(byId("version"), status.version)
  say(byId("uptime"), `up ${span(status.seconds)}`)
  const names = status.routes.map(route => route.name)
  if (!names.includes(chosen)) chosen = null
  showRefused()
  showRoutes(names)
  const of = chosen === null ? names : [chosen]
  say(byId("of"), chosen ?? (names.length === 1 ? names[0] : `All ${names.length} routes`))
  byId("of").hidden = names.length < 2
  showPlots(of)
  const routes = status.routes.filter(route => of.includes(route.name))
  showPartitions(routes)
  showReasons(byId("letters"), routes, "dead_letters", "No dead letter since the run began.")
  showReasons(byId("retries"), routes, "retries", "No request was sent again.")
  showWorkers()
  showReaders(routes.filter(route => route.reader))
  showNewest(routes)
  showLink()
}

/** Show why the run does not use the documents on disk. */
function showRefused() {
  const {refused, since_unix: since} = status.configuration
  byId("refused").hidden = refused === null
  if (refused === null) return
  const hint = refused.hint ? ` Hint: ${refused.hint}.` : ""
  say(byId("refused").querySelector("p"), `${refused.code} at ${refused.place}, since ${day(new Date(since * 1000).toISOString())}: ${refused.reason}.${hint}`)
}

function showRoutes(names) {
  const routes = [...status.routes].sort((one, other) => severity(other) - severity(one)).slice(0, MOST_ROUTES)
  const shown = status.routes.filter(route => routes.includes(route))
  const rows = shown.map(route => ({route, name: route.name, of: [route.name], tone: tone(route)}))
  if (names.length > 1) rows.unshift({name: null, of: names, tone: worst(status.routes), route: null})
  each(byId("routes"), names.length ? rows : [], row => `route ${row.name}`, makeRoute, updateRoute)
  const left = status.routes.length - shown.length
  footer(byId("routes"), 9, names.length === 0 ? "The run begins: there is no route yet." : left ? `and ${left} routes more, of which none is in trouble` : null)
}

const severity = route => ({bad: 2, warn: 1, good: 0})[tone(route)]
const worst = routes => routes.some(route => tone(route) === "bad") ? "bad" : routes.some(route => tone(route) === "warn") ? "warn" : "good"

function footer(table, columns, text) {
  let row = table.tFoot
  if (text === null) return row?.remove()
  row ??= table.createTFoot()
  if (!row.firstChild) row.append(el("tr", {}, el("td", {colspan: columns, class: "note"})))
  say(row.querySelector("td"), text)
  table.append(row)
}

function makeRoute(row) {
  const button = el("button", {type: "button", class: "choose"})
  button.addEventListener("click", () => { chosen = row.name; show() })
  const cells = Array.from({length: 7}, () => el("td", {class: "number"}))
  const state = el("td", {class: "state"}, el("span", {class: "mark", "aria-hidden": "true"}), " ", el("span", {class: "words"}))
  return el("tbody", {},
    el("tr", {}, el("th", {scope: "row"}, button), state, ...cells),
    ...(row.route ? [el("tr", {class: "under"}, el("td", {colspan: 9}))] : []))
}

function updateRoute(body, {route, name, of, tone: colour}) {
  const [first, under] = body.rows
  body.className = `${colour}${chosen === name && history.samples.length ? " chosen" : ""}`
  const button = first.querySelector("button")
  say(button, name ?? "All routes")
  button.title = name ?? ""
  button.setAttribute("aria-pressed", String(chosen === name))
  const [mark, words] = route ? stateOf(route) : stateOfAll()
  say(first.querySelector(".mark"), mark)
  say(first.querySelector(".words"), words)
  const sum = key => history.gauge(of, key).at(-1) ?? null
  const [, high] = history.latency(of, SHARES)
  const texts = [number(history.rate(of, "read").at(-1)), number(history.rate(of, "delivered").at(-1)),
    route?.reader ? span(sum("behind")) : number(sum("lag")), number(sum("in_flight")), duration(high.at(-1)), number(sum("retries")), number(sum("dead_letters"))]
  texts.forEach((text, at) => say(first.cells[at + 2], text))
  if (under) {
    say(under.cells[0], reasonOf(route))
  }
}

const stateOf = route => route.state === "stopped" ? ["✕", "stopped"] : [isWaiting(route) ? "▲" : marks[route.state] ?? "?", route.state]

function stateOfAll() {
  const count = wanted => status.routes.filter(route => tone(route) === wanted).length
  return count("bad") ? ["✕", `${count("bad")} stopped`] : count("warn") ? ["▲", `${count("warn")} in trouble`] : ["●", "all well"]
}

const duration = value => value !== null && value !== undefined && value >= bound() ? `≥ ${span(bound())}` : span(value)
const bound = () => status?.routes[0]?.histograms.request_seconds.bounds.at(-1) ?? Infinity

const plots = [
  [new Plot("Rate", "Messages read and points written, a second", ["in", "out"], number),
    of => [history.rate(of, "read"), history.rate(of, "delivered")]],
  [new Plot("Behind", "Messages that are not settled", ["behind"], number, {whole: true}), of => [history.gauge(of, "lag")]],
  [new Plot("In flight", "Requests under way", ["requests"], number, {whole: true}), of => [history.gauge(of, "in_flight")]],
  [new Plot("Latency", "Time until the answer to a request, over 10 s", SHARES.map(share => `p${share * 100}`), duration),
    of => history.latency(of, SHARES)],
  [new Plot("Retries", "Requests that had to be sent again", ["sent again"], number, {bars: true}), of => [history.growth(of, "retries")]],
  [new Plot("Dead letters", "Messages kept as dead letters", ["kept"], number, {bars: true}),
    of => [history.growth(of, "dead_letters")]],
]
byId("plots").append(...plots.map(([plot]) => plot.element))

/** Return the span that is shown: as long as was chosen, or shorter while the page is new. */
function shownSeconds() {
  const age = history.samples.length ? history.samples.at(-1).at - history.samples[0].at : 0
  return Math.min(seconds, SPANS.find(each => each >= age) ?? seconds)
}

function showPlots(of) {
  const times = history.times()
  for (const [plot, rows] of plots) plot.draw(times, rows(of), shownSeconds())
}

function showPartitions(routes) {
  const all = routes.flatMap(route => Object.entries(route.lag).map(([place, lag]) => ({route: route.name, place, lag, offset: route.offsets[place]})))
  all.sort((one, other) => other.lag - one.lag || (one.place < other.place ? -1 : 1))
  const rows = all.slice(0, MOST_ROWS).sort((one, other) => one.place.localeCompare(other.place, "en", {numeric: true}))
  each(bodyOf(byId("partitions")), rows, row => `${row.route} ${row.place}`, row => {
    const {picture, draw} = sparkline(`lag of ${row.place} over time`)
    return Object.assign(el("tr", {}, el("th", {scope: "row", title: `${row.place} of ${row.route}`}, row.place), el("td", {class: "picture"}, picture), el("td", {class: "number"})), {draw})
  }, (element, row) => {
    element.draw(history.times(), history.partition(row.route, row.place), shownSeconds())
    say(element.cells[2], number(row.lag))
    element.cells[2].title = row.offset === undefined ? "nothing acknowledged yet" : `acknowledged up to ${row.offset}`
  })
  const left = all.slice(MOST_ROWS)
  footer(byId("partitions"), 3, all.length === 0 ? "The source tells no lag." : left.length
    ? `and ${left.length.toLocaleString("en")} partitions more: ${number(left.reduce((sum, {lag}) => sum + lag, 0))} messages` : null)
}

function showReasons(table, routes, counter, none) {
  const sums = new Map()
  for (const route of routes) for (const [reason, count] of Object.entries(route.reasons[counter])) sums.set(reason, (sums.get(reason) ?? 0) + count)
  const all = [...sums].sort((one, other) => other[1] - one[1])
  const most = all[0]?.[1] ?? 1
  each(bodyOf(table), all.slice(0, MOST_ROWS), ([reason]) => reason, ([reason]) => el("tr", {},
    el("th", {scope: "row", title: status.titles[reason] ?? reason}, el("strong", {}, reason), ` ${status.titles[reason] ?? ""}`),
    el("td", {class: "picture"}, svg("svg", {class: "share", width: 60, height: 8, "aria-hidden": "true"}, svg("rect", {height: 8, rx: 2}))), el("td", {class: "number"})),
  (element, [, count]) => {
    element.querySelector("rect").setAttribute("width", Math.max((60 * count) / most, 2))
    say(element.cells[2], number(count))
  })
  const left = all.slice(MOST_ROWS)
  footer(table, 3, all.length === 0 ? none : left.length ? `and ${left.length} reasons more: ${number(left.reduce((sum, [, count]) => sum + count, 0))}` : null)
}

const bodyOf = table => table.tBodies[0] ?? table.createTBody()

function showWorkers() {
  const workers = status.workers ?? []
  byId("workers-panel").hidden = workers.length === 0
  each(bodyOf(byId("workers")), workers, worker => worker.worker, worker => el("tr", {},
    el("th", {scope: "row"}, String(worker.worker)), el("td"), el("td", {class: "number"}), el("td", {class: "number"}), el("td")),
  (element, worker) => {
    say(element.cells[1], worker.pid === null ? `${worker.state}, exit code ${worker.exit_code ?? "unknown"}` : `${worker.state}, process ${worker.pid}`)
    say(element.cells[2], number(history.rateOfWorker(worker.worker)))
    say(element.cells[3], number(worker.restarts))
    const left = worker.partitions.length - MOST_ROWS
    say(element.cells[4], (worker.partitions.slice(0, MOST_ROWS).join(", ") || "none") + (left > 0 ? `, and ${left} more` : ""))
  })
}

function showReaders(routes) {
  if (status.routes.some(route => route.reader)) byId("readers-panel").hidden = false
  each(bodyOf(byId("readers")), routes, route => route.name, route => {
    const {picture, draw} = sparkline(`behind of ${route.name} over time`)
    return Object.assign(el("tr", {}, el("th", {scope: "row", title: route.name}, route.name), el("td"), el("td"), el("td", {class: "number"}), el("td", {class: "picture"}, picture)), {draw})
  }, (element, {name, reader}) => {
    say(element.cells[1], day(reader.done))
    const share = reader.share === null ? "" : `; ${Math.floor(reader.share * 100)} % read${reader.seconds_left === null ? "" : `, ${span(reader.seconds_left)} left`}`
    say(element.cells[2], (reader.backfill ? `${day(reader.backfill[0])} to ${day(reader.backfill[1])}` : "none") + share)
    say(element.cells[3], span(reader.behind_seconds))
    element.draw(history.times(), history.gauge([name], "behind"), shownSeconds())
  })
}

/** A time of RFC 3339 without parts of a second. */
const day = text => text === null ? "nothing yet" : `${text.slice(0, 10)} ${text.slice(11, 19)} UTC`

function showNewest(routes) {
  const letters = routes.flatMap(route => route.newest_dead_letters.map((letter, at) => ({...letter, route: route.name, number: route.dead_letters - route.newest_dead_letters.length + at})))
  letters.sort((one, other) => other.time_unix - one.time_unix || other.number - one.number)
  each(bodyOf(byId("newest")), letters.slice(0, 10), letter => `${letter.number} ${letter.route}`, letter => {
    const head = `${letter.code} ${status.titles[letter.code] ?? ""}${letter.status === null ? "" : `, status ${letter.status}`}`
    const place = letter.location ? [" at ", el("code", {}, letter.location)] : []
    const parts = [["line", letter.line], ["payload", letter.payload]].filter(([, text]) => text)
    const more = letter.reasons > 1 ? [el("p", {class: "note"}, `and ${letter.reasons - 1} reasons more`)] : []
    return el("tr", {}, el("td", {}, clock(letter.time_unix)), el("th", {scope: "row", title: letter.route}, letter.route), el("td", {class: "place"}, letter.at),
      el("td", {}, el("p", {}, el("strong", {}, head), place), ...(letter.reason ? [el("p", {class: "said"}, letter.reason)] : []), ...more,
        ...(parts.length ? [el("dl", {class: "parts"}, parts.map(([name, text]) => el("div", {}, el("dt", {}, name), el("dd", {}, text))))] : [])))
  }, () => {})
  footer(byId("newest"), 4, letters.length ? null : "No dead letter since the run began.")
  const isShort = letters.length > 0 && letters[0].reason === undefined
  say(byId("newest-note"), isShort ? "`iggyflux dead-letters show` prints a letter whole; with `show: words` in `telemetry`, this table has the words and lines." : "")
}

follow()
