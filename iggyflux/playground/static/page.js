// The page: what is open, when the server is asked, and what the buttons do.  The server decides everything else.

import {begin, newest, openFile, saveFile, takeTopic} from "./api.js"
import {byId, counted, el} from "./dom.js"
import {applyFix, mappingEditor, replaceText, samplesEditor, select} from "./editors.js"
import {VIEWS} from "./results.js"

const QUIET_MS = 40
const questions = Object.fromEntries(["look", "answers", "complete", "explain", "fix", "propose", "keep"].map(name => [name, newest(name)]))

const file = {name: null, version: null, saved: ""}
const state = {looked: null, checked: null, sampled: null, answers: null, fault: null, stale: false, showsAll: false, view: "points"}
let start = null

const mapping = mappingEditor(byId("mapping"), {
  complete: position => questions.complete(question({position})).catch(() => null),
  explain: position => questions.explain(question({position})),
  changed: () => later(),
  save,
})
const samples = samplesEditor(byId("samples"), {changed: () => later(), moved: showSamples, save})

const format = () => byId("format").value
const question = more => ({text: mapping.view.state.doc.toString(), samples: samples.view.state.doc.toString(), format: format(), ...more})

function say(text, kind = "") {
  byId("status").textContent = text
  byId("status").className = kind
}

/** Do what a button asks, and say what goes wrong. */
const trying = act => async event => {
  event?.preventDefault?.()
  try {
    await act(event)
  } catch (error) {
    say(error.text ?? String(error), "error")
  }
}

// --- looking ---

let waiting = 0

function later() {
  clearTimeout(waiting)
  waiting = setTimeout(look, QUIET_MS)
  showFile()
}

async function look() {
  const checked = mapping.view.state.doc, sampled = samples.view.state.doc
  try {
    const looked = await questions.look(question())
    if (!looked) return
    const before = state.looked?.made
    Object.assign(state, {looked, checked, sampled, fault: null, answers: null, stale: !looked.made && Boolean(before)})
    mapping.show(looked.problems, checked)
    samples.show(looked.samples.lines, looked.made?.outcomes ?? [], sampled)
    looked.made ??= before ?? null
  } catch (error) {
    state.fault = error.text ?? String(error)
    say(state.fault, "error")
  }
  document.body.dataset.looked = String(Number(document.body.dataset.looked ?? 0) + 1)
  show()
  if (state.view === "answers") await askAnswers()
}

async function askAnswers() {
  if (state.answers || !state.looked?.made || state.stale) return
  try {
    const found = await questions.answers(question())
    if (found) state.answers = found.answers
  } catch (error) {
    state.fault = error.text ?? String(error)
  }
  show()
}

// --- showing ---

const page = {
  showAll: () => (state.showsAll = true, show()),
  goToSample: index => samples.goTo(state.looked?.samples.lines[index] ?? 1),
  select: (from, to) => select(mapping.view, from, to),
  fix: problem => applyFix(mapping.view, problem, state.checked),
}

function show() {
  for (const tab of byId("tabs").children) {
    const chosen = tab.dataset.view === state.view
    tab.textContent = VIEWS[tab.dataset.view].title(state)
    tab.setAttribute("aria-selected", String(chosen))
    tab.tabIndex = chosen ? 0 : -1
  }
  showView()
  showProblems()
  showSamples()
  showCounts()
}

/** Show the view anew, unless it would be the same: making and laying out a table takes longer than all else. */
let viewed = ""
function showView() {
  const seen = JSON.stringify([state.view, state.stale, state.showsAll, state.fault, state.view === "answers" && state.answers,
    state.view === "problems" ? state.looked?.problems : state.looked?.made, state.looked?.samples])
  if (seen === viewed) return
  viewed = seen
  const view = byId("view"), {scrollTop, scrollLeft} = view
  const isStale = state.stale && state.view !== "problems"
  view.replaceChildren(...(isStale ? [el("p", {class: "note stale-note"}, "The mapping has errors. This is what came of the samples before:")] : []), VIEWS[state.view].render(state, page))
  view.classList.toggle("stale", isStale)
  Object.assign(view, {scrollTop, scrollLeft})
  view.setAttribute("aria-labelledby", `tab-${state.view}`)
}

function showProblems() {
  const problems = state.looked?.problems ?? []
  const errors = problems.filter(each => each.severity === "error").length, warnings = problems.length - errors
  const parts = [errors ? counted(errors, "error") : "", warnings ? counted(warnings, "warning") : ""].filter(Boolean)
  byId("problems-button").textContent = parts.join(", ") || "no problems"
  byId("problems-button").className = `state ${errors ? "error" : warnings ? "warning" : "ok"}`
  byId("fix-button").hidden = !problems.some(each => each.fix?.safe)
}

function showCounts() {
  const made = state.stale ? null : state.looked?.made
  const parts = made ? [counted(made.counts.lines, made.measurements.length || !made.counts.lines ? "line" : "message")] : []
  if (made?.counts.bytes) parts.push(counted(made.counts.bytes, "byte"))
  if (made?.counts.failures) parts.push(counted(made.counts.failures, "failure"))
  if (made?.counts.omitted) parts.push(counted(made.counts.omitted, "value omitted", "values omitted"))
  byId("counts").textContent = parts.join(", ")
}

/** Return the index of the sample at the cursor; -1 if there is none. */
const sampleAtCursor = () => (state.looked?.samples.lines ?? []).findLastIndex(line => line <= samples.line())

function showSamples() {
  const looked = state.looked
  if (!looked) return
  const index = sampleAtCursor(), outcome = state.stale ? undefined : looked.made?.outcomes[index]
  const told = ["points", "messages", undefined].includes(outcome) ? "" : ` ${outcome}`
  const about = index < 0 ? counted(looked.samples.count, "sample") : `${index + 1}/${looked.samples.count.toLocaleString("en")}${told}`
  byId("samples-state").textContent = looked.samples.fault?.message ?? about
  byId("samples-state").title = looked.samples.fault?.message ?? "the sample at the cursor"
  byId("samples-state").className = `state ${looked.samples.fault ? "error" : ""}`
  byId("keep-button").disabled = index < 0 || !looked.made || state.stale
}

function showFile() {
  const changed = mapping.view.state.doc.toString() !== file.saved
  byId("file-name").textContent = `${file.name ?? "not saved yet"}${changed && file.name ? " •" : ""}`
  byId("file-name").title = changed ? "has changes that are not saved" : ""
  byId("format").disabled = file.name !== null
}

function choose(view, focus = false) {
  Object.assign(state, {view, showsAll: false})
  show()
  if (focus) byId(`tab-${view}`).focus()
  if (view === "answers") askAnswers()
}

// --- documents ---

function formatOf(name) {
  return name.endsWith(".toml") ? "toml" : "yaml"
}

function setFormat(name) {
  byId("format").value = name
  mapping.setFormat(name)
}

function opened(found, undoable = true) {
  Object.assign(file, {name: found.name, version: found.version, saved: found.version === null && found.name !== null ? "" : found.text})
  if (found.name !== null) setFormat(formatOf(found.name))
  replaceText(mapping.view, found.text, undoable)
  showFile()
}

async function save() {
  await trying(async () => {
    if (file.name === null) {
      byId("save-name").value = `mapping.${format()}`
      return byId("save-dialog").showModal()
    }
    await write(file.name, file.version)
  })()
}

async function write(name, version) {
  const text = mapping.view.state.doc.toString()
  const saved = await saveFile(name, text, version)
  Object.assign(file, {name, version: saved.version, saved: text})
  start.folder.files = saved.files
  setFormat(formatOf(name))
  showFile()
  later()
  say(`saved ${name}`)
}

function download() {
  const address = URL.createObjectURL(new Blob([mapping.view.state.doc.toString()], {type: "text/plain"}))
  el("a", {href: address, download: file.name ?? `mapping.${format()}`}).click()
  URL.revokeObjectURL(address)
}

function choice(name, about, act) {
  return el("li", {}, el("button", {type: "button", click: act}, el("strong", {}, name), about ? el("span", {}, about) : null))
}

function showGallery() {
  byId("gallery-list").replaceChildren(...start.gallery.map(item => choice(item.name, item.about, () => {
    Object.assign(file, {name: null, version: null, saved: ""})
    setFormat("yaml")
    replaceText(mapping.view, item.text)
    replaceText(samples.view, item.samples)
    byId("gallery-dialog").close()
    say(`${item.name}, with ${item.samples ? "its samples" : "no samples"}; Ctrl-Z in an editor brings back what was there`)
  })))
  byId("gallery-dialog").showModal()
}

function showFiles() {
  byId("folder-name").textContent = start.folder.name
  const files = start.folder.files
  byId("open-list").replaceChildren(...files.map(name => choice(name, "", trying(async () => {
    byId("open-dialog").close()
    opened(await openFile(name))
    say(`opened ${name}`)
  }))))
  if (!files.length) byId("open-list").append(el("li", {class: "note"}, "There are no files that end with .yaml, .yml or .toml."))
  byId("open-dialog").showModal()
}

// --- samples ---

async function inferMapping() {
  const found = await questions.propose(question())
  if (!found) return
  replaceText(mapping.view, found.text)
  choose("points")
  say([...found.notes, ...found.warnings].join(" "), found.warnings.length ? "warning" : "")
}

/** Ask for the name of the example that the sample at the cursor becomes. */
function askExampleName() {
  const index = sampleAtCursor(), {outcomes, lines} = state.looked.made
  const count = lines.filter(([sample]) => sample === index).length
  const words = {skipped: "is skipped", empty: "has no elements", failed: "fails"}[outcomes[index]]
  byId("keep-name").value = `sample ${index + 1} ${words ?? `makes ${counted(count, "point")}`}`
  byId("keep-form").dataset.sample = index
  byId("keep-dialog").showModal()
  byId("keep-name").select()
}

async function keepSample(index, name) {
  const found = await questions.keep(question({sample: index, name}))
  if (!found) return
  const before = mapping.view.state.doc.toString(), after = found.text
  let from = 0
  while (from < before.length && before[from] === after[from]) from += 1
  let tail = 0
  while (tail < before.length - from && before[before.length - 1 - tail] === after[after.length - 1 - tail]) tail += 1
  mapping.view.dispatch({changes: {from, to: before.length - tail, insert: after.slice(from, after.length - tail)}})
  select(mapping.view, from, after.length - tail)
  say(`sample ${index + 1} is an example now`)
}

async function fixAll() {
  const found = await questions.fix(question())
  if (!found) return
  if (found.count) replaceText(mapping.view, found.text)
  say(found.count ? `${counted(found.count, "fix", "fixes")} applied` : "no fix is certain: choose one under Problems")
}

function showTopics() {
  const {topics} = start
  byId("topic-hint").textContent = topics
    ? `From ${topics.origin}. No offset is stored.`
    : "Start the command with --from log:DIR, or with --from iggy and --pipeline FILE, to take messages of a topic."
  byId("topic-names").replaceChildren(...(topics?.names ?? []).map(name => el("option", {value: name})))
  if (topics?.names.length && !byId("topic-name").value) byId("topic-name").value = topics.names[0]
  for (const field of byId("topic-form").querySelectorAll("input, button[type=submit]")) field.disabled = !topics
  byId("topic-dialog").showModal()
}

// --- the theme ---

const THEMES = ["auto", "dark", "light"]

function setTheme(name) {
  document.documentElement.dataset.theme = name
  byId("theme-button").title = `theme: ${name === "auto" ? "as the system" : name}`
  try {
    localStorage.setItem("iggyflux-theme", name)
  } catch { /* it is forgotten with the page */ }
}

function savedTheme() {
  try {
    return localStorage.getItem("iggyflux-theme")
  } catch {
    return null
  }
}

// --- the start ---

function listen() {
  const on = (id, act) => byId(id).addEventListener("click", trying(act))
  on("gallery-button", showGallery)
  on("open-button", showFiles)
  on("save-button", save)
  on("download-button", download)
  on("theme-button", () => setTheme(THEMES[(THEMES.indexOf(document.documentElement.dataset.theme) + 1) % THEMES.length]))
  on("help-button", () => byId("help-dialog").showModal())
  on("problems-button", () => choose("problems"))
  on("fix-button", fixAll)
  on("infer-button", inferMapping)
  on("topic-button", showTopics)
  on("keep-button", askExampleName)
  byId("format").addEventListener("change", () => (setFormat(format()), later()))
  for (const button of document.querySelectorAll("dialog .close")) button.addEventListener("click", () => button.closest("dialog").close())
  byId("save-form").addEventListener("submit", trying(async () => {
    const name = byId("save-name").value
    byId("save-dialog").close()
    await write(name, null)
  }))
  byId("keep-form").addEventListener("submit", trying(async () => {
    byId("keep-dialog").close()
    await keepSample(Number(byId("keep-form").dataset.sample), byId("keep-name").value)
  }))
  byId("topic-form").addEventListener("submit", trying(async () => {
    byId("topic-dialog").close()
    const found = await takeTopic(byId("topic-name").value, Number(byId("topic-last").value))
    replaceText(samples.view, found.samples)
    say(`the last messages of ${byId("topic-name").value}`)
  }))
  window.addEventListener("beforeunload", event => {
    if (file.name !== null && mapping.view.state.doc.toString() !== file.saved) event.preventDefault()
  })
  document.addEventListener("keydown", event => {
    if ((event.ctrlKey || event.metaKey) && event.key === "s" && !event.defaultPrevented) {
      event.preventDefault()
      save()
    }
  })
  byId("tabs").append(...Object.keys(VIEWS).map(view => el("button", {
    type: "button", role: "tab", id: `tab-${view}`, "data-view": view, "aria-controls": "view", click: () => choose(view),
  })))
  byId("tabs").addEventListener("keydown", event => {
    const names = Object.keys(VIEWS), step = {ArrowRight: 1, ArrowLeft: -1}[event.key]
    if (step) choose(names[(names.indexOf(state.view) + step + names.length) % names.length], true)
  })
}

async function open() {
  setTheme(THEMES.includes(savedTheme()) ? savedTheme() : "auto")
  listen()
  show()
  start = await begin()
  replaceText(samples.view, start.samples, false)
  opened(start.file, false)
  mapping.view.focus()
}

trying(open)()
