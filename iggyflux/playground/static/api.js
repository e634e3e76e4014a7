// Questions to the server of this page.  The token is in the fragment of the URL, which no request contains.

const token = new URLSearchParams(location.hash.slice(1)).get("token") ?? ""

/** A refusal or a fault, in words for the user. */
export class Fault extends Error {
  constructor(fault) {
    super(fault.message)
    this.code = fault.code
    this.hint = fault.hint
    this.line = fault.line
  }

  get text() {
    const code = this.code ? `${this.code}: ` : ""
    const line = this.line ? `line ${this.line}: ` : ""
    return `${code}${line}${this.message}${this.hint ? ` (${this.hint})` : ""}`
  }
}

async function request(method, path, body, signal) {
  const headers = {"x-playground-token": token}
  if (body !== undefined) headers["content-type"] = "application/json"
  let response
  try {
    response = await fetch(path, {method, headers, body: body === undefined ? undefined : JSON.stringify(body), signal})
  } catch (error) {
    if (error.name === "AbortError") throw error
    throw new Fault({message: "the playground does not answer: was the command ended?"})
  }
  const answer = await response.json().catch(() => ({fault: {message: `${response.status} ${response.statusText}`}}))
  if (answer.fault) throw new Fault(answer.fault)
  return answer
}

export const begin = () => request("GET", "api/start")
export const ask = (name, question, signal) => request("POST", `api/ask/${name}`, question, signal)
export const openFile = name => request("GET", `api/files/${encodeURIComponent(name)}`)
export const saveFile = (name, text, version) => request("PUT", `api/files/${encodeURIComponent(name)}`, {text, version})
export const takeTopic = (topic, last) => request("POST", "api/topic", {topic, last})

/** Return a function that asks one kind of question; an older one that has no answer yet is dropped, and gives null. */
export function newest(name) {
  let controller = null
  return async question => {
    controller?.abort()
    const own = controller = new AbortController()
    try {
      const answer = await ask(name, question, own.signal)
      return own === controller ? answer : null
    } catch (error) {
      if (error.name === "AbortError" || own !== controller) return null
      throw error
    }
  }
}
