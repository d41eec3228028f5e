// Search on a site opened from a disk. Browsers start no worker from a file, so the worker's script runs in a hidden frame.
if (location.protocol === 'file:') {
  window.Worker = class extends EventTarget {
    constructor(address) {
      super();
      this.frame = document.createElement('iframe');
      this.frame.hidden = true;
      document.body.append(this.frame);  // empty and of this page, so it is there at once
      const inner = this.frame.contentWindow;
      const load = (url) => new Promise((done, fail) => {
        const script = inner.document.createElement('script');
        [script.src, script.onload, script.onerror] = [url, done, fail];
        inner.document.head.append(script);
      });
      inner.postMessage = (data) => this.dispatchEvent(new MessageEvent('message', { data }));
      inner.importScripts = (...urls) => Promise.all(urls.map(load));
      this.loaded = load(new URL(address, document.baseURI).href).then(() => inner);
    }

    postMessage(data) {
      this.loaded.then((inner) => inner.dispatchEvent(new inner.MessageEvent('message', { data })));
    }

    terminate() { this.frame.remove(); }
  };
}
