// What `/status` said in the last minutes, and the rates, sums and quantiles that follow from it.  Pure: no page, no clock.

const MOST = 950 // samples: 15 minutes, one a second
const MOST_PARTITIONS = 32 // of a route, those furthest behind
const RATE_SECONDS = 3 // the shortest time that a rate is made of
const LATENCY_SECONDS = 10

export class History {
  #started = null
  samples = []

  /** Add an answer of `/status`; a run that began anew begins a new history. */
  add(status) {
    if (this.#started !== status.started_unix) this.samples = []
    this.#started = status.started_unix
    const last = this.samples.at(-1)
    if (last && last.at >= status.time_unix) return // the server's own copy of the answer before
    this.samples.push({at: status.time_unix, routes: new Map(status.routes.map(route => [route.name, numbers(route)])), workers: new Map((status.workers ?? []).map(each => [each.worker, each.read]))})
    if (this.samples.length > MOST) this.samples.shift()
  }

  /** Return times and samples of the last `seconds`, each with the sum over `names` of what `read` returns. */
  #sums(names, read) {
    return this.samples.map(({routes}) => names.reduce((sum, name) => {
      const route = routes.get(name)
      const value = route === undefined ? null : read(route)
      return value === null || value === undefined ? sum : (sum ?? 0) + value
    }, null))
  }

  times() {
    return this.samples.map(({at}) => at)
  }

  /** Return a gauge of routes, added up. */
  gauge(names, key) {
    return this.#sums(names, route => route[key])
  }

  /** Return by how much a counter grew a second, at each sample. */
  rate(names, key) {
    const sums = this.#sums(names, route => route[key])
    return sums.map((value, at) => {
      const from = this.#before(at, RATE_SECONDS)
      if (value === null || from === at || sums[from] === null) return null
      return Math.max(value - sums[from], 0) / (this.samples[at].at - this.samples[from].at)
    })
  }

  /** Return by how much a counter grew since the sample before. */
  growth(names, key) {
    const sums = this.#sums(names, route => route[key])
    return sums.map((value, at) => (at && value !== null && sums[at - 1] !== null ? Math.max(value - sums[at - 1], 0) : 0))
  }

  /** Return quantiles of the duration of requests that ended in the last seconds: for each of `shares` a row. */
  latency(names, shares) {
    const found = this.samples.map((sample, at) => {
      const from = this.samples[this.#before(at, LATENCY_SECONDS)]
      const bounds = sample.routes.get(names[0])?.bounds ?? []
      const counts = new Array(bounds.length + 1).fill(0)
      for (const name of names) {
        const [now, then] = [sample.routes.get(name), from.routes.get(name)]
        if (now && then) now.counts.forEach((count, bucket) => { counts[bucket] += count - then.counts[bucket] })
      }
      return shares.map(share => quantile(bounds, counts, share))
    })
    return shares.map((_, row) => found.map(each => each[row]))
  }

  /** Return how many messages a second a worker reads now. */
  rateOfWorker(worker) {
    const at = this.samples.length - 1
    const [now, then] = [this.samples[at], this.samples[this.#before(at, RATE_SECONDS)]]
    const [count, before] = [now.workers.get(worker), then.workers.get(worker)]
    return now === then || before === undefined ? null : Math.max(count - before, 0) / (now.at - then.at)
  }

  /** Return the lag of one partition, at each sample. */
  partition(route, place) {
    return this.samples.map(({routes}) => routes.get(route)?.lags.get(place) ?? null)
  }

  /** Return the index of the newest sample that is at least `seconds` older than the one at an index, or of the first. */
  #before(at, seconds) {
    let from = at
    while (from > 0 && this.samples[at].at - this.samples[from].at < seconds) from -= 1
    return from
  }
}

function numbers(route) {
  const lags = Object.entries(route.lag).sort((one, other) => other[1] - one[1])
  const {bounds, counts} = route.histograms.request_seconds
  return {
    read: route.read, delivered: route.delivered, retries: route.retries, dead_letters: route.dead_letters,
    in_flight: route.in_flight, lag: lags.length ? lags.reduce((sum, [, lag]) => sum + lag, 0) : null,
    behind: route.reader?.behind_seconds ?? null, lags: new Map(lags.slice(0, MOST_PARTITIONS)), bounds, counts,
  }
}

/** Return a quantile of counts by upper bounds, linear within a bucket; null of nothing; above all bounds the last one. */
export function quantile(bounds, counts, share) {
  const wanted = counts.reduce((sum, count) => sum + count, 0) * share
  if (!wanted) return null
  let below = 0
  for (const [bucket, bound] of bounds.entries()) {
    if (counts[bucket] && below + counts[bucket] >= wanted) {
      const low = bucket ? bounds[bucket - 1] : 0
      return low + (bound - low) * ((wanted - below) / counts[bucket])
    }
    below += counts[bucket]
  }
  return bounds.at(-1)
}
