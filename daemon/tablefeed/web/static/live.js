// The connection to the daemon: events while they come, questions where they do not, and the truth about both.

const LIVE = 12000; // milliseconds without a word after which the connection counts as lost; a sign of life comes every 5 s
const PAUSES = [1000, 2000, 3000, 5000];

// Calls `onPicture(picture)` with each picture, and `onLink(link)` with how the connection is: "live", "polled" (looked at from
// time to time, because there is no stream), "lost" or "ended".
export class Live {
  #onPicture;
  #onLink;
  #source = null;
  #again = null;
  #failures = 0;
  #heard = 0;
  #round = 0;
  #ticked = Date.now();

  constructor(onPicture, onLink) {
    this.#onPicture = onPicture;
    this.#onLink = onLink;
    setInterval(() => this.#check(), 1000);
    document.addEventListener("visibilitychange", () => this.#seen());
    addEventListener("online", () => this.#open());
    addEventListener("pagehide", () => this.#close());
    addEventListener("pageshow", (event) => event.persisted && this.#open());
    this.#open();
  }

  #open() {
    this.#close();
    if (document.hidden) return;
    const source = new EventSource("/events");
    this.#source = source;
    this.#heard = performance.now();
    source.onmessage = (event) => this.#take(JSON.parse(event.data), "live");
    source.addEventListener("end", () => this.#lose("ended"));
    source.onerror = () => this.#ask();
  }

  #close() {
    this.#round += 1;
    this.#source?.close();
    this.#source = null;
    clearTimeout(this.#again);
  }

  #take(picture, link) {
    this.#failures = 0;
    this.#heard = performance.now();
    this.#onPicture(picture);
    this.#onLink(link);
  }

  #lose(link) {
    this.#close();
    this.#onLink(link);
    const pause = PAUSES[Math.min(this.#failures, PAUSES.length - 1)];
    this.#failures += 1;
    this.#again = setTimeout(() => this.#open(), pause);
  }

  // There is no stream: too many pages look, a proxy lets none through, or the daemon is away. A question tells.
  async #ask() {
    this.#close();
    const round = this.#round;
    try {
      const answer = await fetch("/api/status", { cache: "no-store", signal: AbortSignal.timeout(5000) });
      if (!answer.ok) throw new Error(String(answer.status));
      const picture = await answer.json();
      if (round !== this.#round) return;
      this.#take(picture, "polled");
      this.#again = setTimeout(() => this.#open(), 5000);
    } catch {
      if (round === this.#round) this.#lose("lost");
    }
  }

  #check() {
    const slept = Date.now() - this.#ticked > 5000;
    this.#ticked = Date.now();
    if (slept) this.#seen();
    else if (this.#source && performance.now() - this.#heard > LIVE) this.#lose("lost");
  }

  // What is hidden need not look; and what it showed is old when somebody sees it again, until the daemon has spoken.
  #seen() {
    if (document.hidden) this.#close();
    else {
      this.#onLink("waking");
      this.#open();
    }
  }
}
