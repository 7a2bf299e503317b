// <connect-button>: a button that leads to a connect link. It depends on nothing, and needs no inline style: it runs
// under style-src 'self'. Without JavaScript, and before this file is there, the link inside it does the same.
//
//   <connect-button href="…" name="GitHub"><a href="…">Connect GitHub</a></connect-button>
const css = `
:host{display:inline-flex;max-width:100%;--cb-a:var(--connect-button-accent,#4a3fd1);--cb-b:var(--connect-button-accent-2,#8a3fd1);
  --cb-text:var(--connect-button-text,#fff);--cb-ink:#191815;--cb-line:#8b877d;--cb-bg:#fff;--cb-acc:var(--connect-button-accent,#4a3fd1)}
@media (prefers-color-scheme:dark){:host{--cb-ink:#f3f2ef;--cb-line:#76767f;--cb-bg:#19191c;--cb-acc:var(--connect-button-accent-dark,#a8a0ff)}}
:host([hidden]){display:none}
a{all:unset;box-sizing:border-box;cursor:pointer;display:inline-flex;align-items:center;justify-content:center;gap:.6em;
  border-radius:var(--connect-button-radius,10px);font:600 .9375rem/1.25 var(--connect-button-font,ui-sans-serif,system-ui,-apple-system,"Segoe UI",Roboto,"Noto Sans",sans-serif);
  min-height:44px;padding:.4em 1.1em;max-width:100%;overflow-wrap:anywhere;border:1px solid transparent;-webkit-tap-highlight-color:transparent}
a:focus-visible{outline:3px solid var(--cb-acc);outline-offset:2px}
:host([size=sm]) a{min-height:36px;font-size:.8438rem;padding:.3em .9em}
:host([size=lg]) a{min-height:54px;font-size:1.0625rem;padding:.5em 1.35em}
a.default{color:var(--cb-text);background:linear-gradient(120deg,var(--cb-a),var(--cb-b));box-shadow:inset 0 1px 0 rgb(255 255 255/.18),0 1px 2px rgb(20 10 60/.25)}
a.default:hover{filter:brightness(.93)}
a.outline{color:var(--cb-ink);background:var(--cb-bg);border-color:var(--cb-line)}
a.outline:hover{border-color:currentColor}
a.text{color:var(--cb-acc);padding:.4em .35em;text-decoration:underline;text-underline-offset:.2em}
a.active,a.reconnect{box-shadow:none}
a.active{color:#0d5c35;background:#e5f4ea;border-color:#b9dfc8}
a.reconnect{color:#7a4200;background:#fdf0da;border-color:#eccf99}
@media (prefers-color-scheme:dark){a.active{color:#8fe3b4;background:#14291e;border-color:#25573c}a.reconnect{color:#f5c063;background:#2f2411;border-color:#5f4818}}
a[aria-disabled]{cursor:progress}
svg{width:1.2em;height:1.2em;fill:currentColor;flex:none}
.sp{box-sizing:border-box;width:1.05em;height:1.05em;border-radius:50%;border:2px solid currentColor;border-inline-end-color:transparent;animation:s .8s linear infinite;flex:none}
@keyframes s{to{transform:rotate(1turn)}}
@media (prefers-reduced-motion:reduce){.sp{animation:none}}
@media (forced-colors:active){a{border:1px solid LinkText}}
`;
const sheet = new CSSStyleSheet();
sheet.replaceSync(css);

const ICONS = {
  plug: "M8 2v5H6v5a6 6 0 0 0 5 5.9V22h2v-4.1A6 6 0 0 0 18 12V7h-2V2h-2v5h-4V2z",
  active: "M9.2 16.6 4.9 12.3l1.5-1.5 2.8 2.9 8.4-8.5 1.5 1.5z",
  reconnect: "M12 2 1 21h22zm1 15h-2v-2h2zm0-4h-2V9h2z",
};
const TEXTS = {
  en: { connect: "Connect {s}", active: "{s} connected", reconnect: "Reconnect {s}", busy: "Opening {s} …" },
  de: { connect: "{s} verbinden", active: "{s} verbunden", reconnect: "{s} neu verbinden", busy: "{s} wird geöffnet …" },
};
const SVG = "http://www.w3.org/2000/svg";

function icon(path) {
  const svg = document.createElementNS(SVG, "svg");
  svg.setAttribute("viewBox", "0 0 24 24");
  svg.setAttribute("aria-hidden", "true");
  const shape = document.createElementNS(SVG, "path");
  shape.setAttribute("d", path);
  svg.append(shape);
  return svg;
}

export class ConnectButton extends HTMLElement {
  static observedAttributes = ["href", "name", "integration", "label", "variant", "status", "icon", "aria-busy"];
  #root = this.attachShadow({ mode: "open", delegatesFocus: true });
  #link = document.createElement("a");

  constructor() {
    super();
    this.#root.adoptedStyleSheets = [sheet];
    this.#link.part = "button";
    this.#link.addEventListener("click", (event) => this.#go(event));
    this.#root.append(this.#link);
  }

  connectedCallback() {
    addEventListener("pageshow", this.#reset);
    this.#draw();
  }

  disconnectedCallback() {
    removeEventListener("pageshow", this.#reset);
  }

  attributeChangedCallback() {
    if (this.isConnected) this.#draw();
  }

  // Who comes back, or stops the page that is opening, finds no spinner that turns for ever.
  #reset = () => this.removeAttribute("aria-busy");

  get #busy() {
    return this.getAttribute("aria-busy") === "true";
  }

  // What the link inside says counts where the attribute is missing. Only web addresses are followed.
  get #target() {
    const href = this.getAttribute("href") ?? this.querySelector("a")?.getAttribute("href") ?? "";
    try {
      const url = new URL(href, document.baseURI);
      return href && /^https?:$/.test(url.protocol) ? url.href : "";
    } catch {
      return "";
    }
  }

  #text() {
    const name = this.getAttribute("name") ?? this.getAttribute("integration") ?? "";
    const lang = (this.closest("[lang]")?.lang ?? "").toLowerCase().split("-")[0];
    const texts = TEXTS[lang] ?? TEXTS.en;
    const label = this.getAttribute("label");
    if (label && !this.#busy) return label;
    const key = this.#busy ? "busy" : this.getAttribute("status");
    return (Object.hasOwn(texts, key) ? texts[key] : texts.connect).replace("{s}", () => name).trim();
  }

  #draw() {
    const status = this.getAttribute("status");
    const variant = this.getAttribute("variant");
    const target = this.#target;
    const link = this.#link;
    if (target) link.href = target;
    else link.removeAttribute("href");
    link.className = status === "active" || status === "reconnect" ? status : variant === "outline" || variant === "text" ? variant : "default";
    link.toggleAttribute("aria-disabled", this.#busy);
    if (this.#busy) link.setAttribute("aria-disabled", "true");
    const picture = this.#busy ? document.createElement("span") : icon(ICONS[status] ?? this.getAttribute("icon") ?? ICONS.plug);
    if (this.#busy) picture.className = "sp";
    const label = document.createElement("span");
    label.part = "label";
    label.textContent = this.#text();
    link.replaceChildren(picture, label);
  }

  // Plain navigation: no popup to be blocked, no opener to lose. A page that wants to do something else cancels the event.
  #go(event) {
    if (this.#busy) return event.preventDefault();
    const go = new CustomEvent("connect", { bubbles: true, composed: true, cancelable: true, detail: { href: this.#target } });
    if (!this.dispatchEvent(go)) return event.preventDefault();
    if (this.#target && event.button === 0 && !event.metaKey && !event.ctrlKey && !event.shiftKey) {
      this.setAttribute("aria-busy", "true");
      setTimeout(this.#reset, 10000);
    }
  }
}

if (!customElements.get("connect-button")) customElements.define("connect-button", ConnectButton);
