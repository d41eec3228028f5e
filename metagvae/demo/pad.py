"""A canvas to draw on, a component of the page whose value is the drawing after each stroke, a PNG data address."""

from __future__ import annotations

from typing import Any

SIDE = 280  # pixels
PEN = 15  # pixels: at 28 x 28 the strokes are as thick as Omniglot's

_TEMPLATE = (
    f'<canvas width="{SIDE}" height="{SIDE}" aria-label="Draw here"></canvas><button type="button">Wipe</button>'
)
_STYLE = """
canvas { border: 1px solid #888; border-radius: 6px; background: white; touch-action: none; cursor: crosshair;
         max-width: 100%; display: block; }
button { margin-top: 6px; padding: 2px 14px; border: 1px solid #888; border-radius: 6px; }
"""
# the listeners are the element's own: the template may be drawn anew when the value changes
_SCRIPT = (
    """
let last = null;
const canvas = () => element.querySelector('canvas');
const wipe = () => { const c = canvas(), p = c.getContext('2d'); p.fillStyle = 'white';
  p.fillRect(0, 0, c.width, c.height); };
const place = (e) => { const c = canvas(), b = c.getBoundingClientRect();
  return [(e.clientX - b.left) * c.width / b.width, (e.clientY - b.top) * c.height / b.height]; };
const line = (from, to) => { const p = canvas().getContext('2d'); p.strokeStyle = 'black'; p.lineWidth = PEN;
  p.lineCap = p.lineJoin = 'round'; p.beginPath(); p.moveTo(...from); p.lineTo(...to); p.stroke(); };
const keep = () => { const c = canvas(), drawn = c.toDataURL('image/png'); props.value = drawn; trigger('input');
  requestAnimationFrame(() => { const now = canvas(); if (now !== c) { const image = new Image();
    image.onload = () => now.getContext('2d').drawImage(image, 0, 0); image.src = drawn; } }); };
wipe();
element.addEventListener('pointerdown', (e) => { if (e.target !== canvas()) return; e.preventDefault();
  last = place(e); line(last, last); });
window.addEventListener('pointermove', (e) => { if (!last) return; const to = place(e); line(last, to); last = to; });
window.addEventListener('pointerup', () => { if (last) { last = null; keep(); } });
element.addEventListener('click', (e) => { if (e.target.tagName !== 'BUTTON') return;
  wipe(); props.value = ''; trigger('clear'); });
watch('value', () => { if (!props.value) wipe(); });
"""
).replace("PEN", str(PEN))


def pad(name: str) -> Any:
    """The component; ``name`` is its id on the page. It triggers ``input`` after a stroke and ``clear`` when wiped."""
    import gradio as gr

    return gr.HTML(value="", html_template=_TEMPLATE, css_template=_STYLE, js_on_load=_SCRIPT, elem_id=name)
