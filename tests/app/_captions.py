"""Captions of the small run."""

from findnemo import demo

HOSTILE = (
    '<script>document.title="owned"</script><img src=x'
    " onerror=\"document.title='owned'\"></td></table> ${6*7} {{6*7}}"
    " [link](javascript:document.title='owned') **bold** \u202edlrow olleh"
)
LONG = "a long caption " * 666 + "end"
FIRST, SECOND = (p.text for p in demo.memorized()[:2])
