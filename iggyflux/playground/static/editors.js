// The two editors: CodeMirror, with what the server says of the text.

import * as cm from "./codemirror.js"
import {el, markdown} from "./dom.js"

const nonce = document.querySelector('meta[name="csp-nonce"]').content

const colours = cm.HighlightStyle.define([
  {tag: [cm.tags.propertyName, cm.tags.definition(cm.tags.propertyName), cm.tags.attributeName], class: "tok-key"},
  {tag: [cm.tags.string, cm.tags.special(cm.tags.string)], class: "tok-string"},
  {tag: [cm.tags.number, cm.tags.bool, cm.tags.null, cm.tags.atom, cm.tags.keyword], class: "tok-atom"},
  {tag: [cm.tags.comment, cm.tags.lineComment], class: "tok-comment"},
  {tag: [cm.tags.punctuation, cm.tags.separator, cm.tags.squareBracket, cm.tags.brace], class: "tok-mark"},
])

const common = [
  cm.EditorView.cspNonce.of(nonce),
  cm.lineNumbers(),
  cm.highlightActiveLineGutter(),
  cm.highlightSpecialChars(),
  cm.history(),
  cm.drawSelection(),
  cm.highlightActiveLine(),
  cm.bracketMatching(),
  cm.highlightSelectionMatches(),
  cm.syntaxHighlighting(colours),
]

const language = format => (format === "toml" ? cm.StreamLanguage.define(cm.toml) : cm.yaml())

/** Return whether an update changed the text. */
const onChange = act => cm.EditorView.updateListener.of(update => update.docChanged && act())

/** Replace the whole text, as one step that can be undone, or that cannot. */
export function replaceText(view, text, undoable = true) {
  view.dispatch({
    changes: {from: 0, to: view.state.doc.length, insert: text},
    selection: {anchor: 0},
    scrollIntoView: true,
    annotations: [cm.Transaction.addToHistory.of(undoable), cm.isolateHistory.of("full")],
  })
}

// --- the mapping ---

const KINDS = {key: "property", word: "enum", member: "variable", name: "constant", function: "function"}
const ORDER = ["key", "word", "member", "name", "function"]
const WORD = /[\w$*-]*$/
const OPENERS = ".('\"`:= {[,"

/**
 * Return the editor of the mapping.
 * `complete(position)` and `explain(position)` ask the server; `changed()` is called for each change of the text.
 */
export function mappingEditor(parent, {complete, explain, changed, save}) {
  const format = new cm.Compartment()

  async function completions(context) {
    const before = context.matchBefore(WORD)
    const typed = before.from < before.to
    const last = context.state.sliceDoc(before.from - 1, before.from)
    if (!context.explicit && !typed && !OPENERS.includes(last || "\n")) return null
    const answer = await complete(context.pos)
    const found = answer?.completions ?? []
    if (!found.length || context.aborted) return null
    const from = found[0].from
    const options = found.filter(each => each.from === from).map(each => ({
      label: each.label,
      type: KINDS[each.kind],
      detail: each.detail || undefined,
      info: each.documentation ? () => markdown(each.documentation) : undefined,
      apply: each.insert,
      boost: -ORDER.indexOf(each.kind),
    }))
    return {from, options, validFor: /^[\w$*-]*$/}
  }

  const hover = cm.hoverTooltip(async (view, position) => {
    const text = view.state.doc
    const found = await explain(position).catch(() => null)
    if (!found?.text || !view.state.doc.eq(text)) return null
    return {pos: found.from, end: found.to, above: true, create: () => ({dom: el("div", {class: "explained"}, markdown(found.text))})}
  }, {hoverTime: 250})

  const view = new cm.EditorView({
    parent,
    extensions: [
      common,
      format.of(language("yaml")),
      cm.indentUnit.of("  "),
      cm.indentOnInput(),
      cm.closeBrackets(),
      cm.autocompletion({override: [completions], icons: true, activateOnTypingDelay: 60}),
      cm.lintGutter(),
      hover,
      cm.keymap.of([
        {key: "Mod-s", run: () => (save(), true), preventDefault: true},
        ...cm.closeBracketsKeymap, ...cm.completionKeymap, ...cm.lintKeymap, ...cm.searchKeymap,
        ...cm.historyKeymap, ...cm.defaultKeymap, cm.indentWithTab,
      ]),
      cm.EditorView.contentAttributes.of({"aria-label": "Mapping"}),
      onChange(changed),
    ],
  })
  return {
    view,
    setFormat: name => view.dispatch({effects: format.reconfigure(language(name))}),
    /** Underline the problems of the text `checked`. */
    show(problems, checked) {
      if (!view.state.doc.eq(checked)) return
      const end = view.state.doc.length
      const diagnostics = problems.map(problem => {
        const line = view.state.doc.lineAt(Math.min(problem.from, end))
        const to = problem.to > problem.from ? problem.to : Math.max(line.to, problem.from)
        return {
          from: Math.min(problem.from, end),
          to: Math.min(to, end),
          severity: problem.severity,
          message: problem.message,
          renderMessage: () => described(problem),
          actions: problem.fix ? [{name: problem.fix.title, apply: () => applyFix(view, problem, checked)}] : [],
        }
      })
      view.dispatch(cm.setDiagnostics(view.state, diagnostics))
    },
  }
}

/** Apply the fix of a problem of the text `checked`; do nothing if the text is another one now. */
export function applyFix(view, problem, checked) {
  if (!view.state.doc.eq(checked)) return
  view.dispatch({changes: problem.fix.edits, userEvent: "input.fix"})
  view.focus()
}

export function described(problem) {
  return el("div", {class: "problem-text"},
    el("div", {}, problem.message, " ", el("span", {class: "code"}, problem.code)),
    problem.details.map(([label, text]) => el("div", {class: "detail"}, `${label}: ${text}`)))
}

/** Select a range of the mapping, and show it. */
export function select(view, from, to) {
  const end = view.state.doc.length
  view.dispatch({selection: {anchor: Math.min(from, end), head: Math.min(to, end)}, effects: cm.EditorView.scrollIntoView(Math.min(from, end), {y: "center"})})
  view.focus()
}

// --- the samples ---

const setMarks = cm.StateEffect.define()
const marks = cm.StateField.define({
  create: () => cm.Decoration.none,
  update(value, transaction) {
    for (const effect of transaction.effects) if (effect.is(setMarks)) return effect.value
    return value.map(transaction.changes)
  },
  provide: field => cm.EditorView.decorations.from(field),
})

/** Return the editor of the samples; `moved()` is called where the cursor is in another line. */
export function samplesEditor(parent, {changed, moved, save}) {
  const view = new cm.EditorView({
    parent,
    extensions: [
      common,
      cm.EditorView.lineWrapping,
      cm.json(),
      marks,
      cm.keymap.of([
        {key: "Mod-s", run: () => (save(), true), preventDefault: true},
        ...cm.searchKeymap, ...cm.historyKeymap, ...cm.defaultKeymap,
      ]),
      cm.EditorView.contentAttributes.of({"aria-label": "Samples"}),
      onChange(changed),
      cm.EditorView.updateListener.of(update => (update.selectionSet || update.docChanged) && moved()),
    ],
  })
  return {
    view,
    /** Mark the samples that fail or are skipped; `lines` are their first lines. */
    show(lines, outcomes, checked) {
      if (!view.state.doc.eq(checked)) return
      const builder = new cm.RangeSetBuilder()
      lines.forEach((line, index) => {
        const outcome = outcomes[index]
        if (line > view.state.doc.lines || !["failed", "skipped", "empty"].includes(outcome)) return
        const at = view.state.doc.line(Math.max(line, 1)).from
        builder.add(at, at, cm.Decoration.line({class: `sample-${outcome}`}))
      })
      view.dispatch({effects: setMarks.of(builder.finish())})
    },
    /** Return the line of the cursor, from 1. */
    line: () => view.state.doc.lineAt(view.state.selection.main.head).number,
    goTo(line) {
      const place = view.state.doc.line(Math.min(Math.max(line, 1), view.state.doc.lines))
      select(view, place.from, place.from)
    },
  }
}
