"""The style sheet of the pages. Inline, so that a page is one response."""

STYLE = """
:root{color-scheme:light dark;--paper:#fbfbf9;--ink:#1c1e26;--dim:#62656f;--line:#dfdfda;--stripe:#0000000b;
--light:.5;--chroma:.16}
@media (prefers-color-scheme:dark){:root{--paper:#13151b;--ink:#e4e5ea;--dim:#9a9eaa;--line:#2c2f39;--stripe:#ffffff0d;
--light:.78;--chroma:.13}}
*{box-sizing:border-box}
body{--accent:oklch(var(--light) var(--chroma) var(--hue));--size:.9375rem;--groups:10;--rows:10;
margin:0 auto;padding:2.5rem 1.5rem 4rem;max-width:calc(72rem);background:var(--paper);color:var(--ink);
font:1rem/1.5 system-ui,-apple-system,"Segoe UI",Roboto,"Liberation Sans",sans-serif;-webkit-text-size-adjust:100%;
overflow-wrap:anywhere}
h1{margin:0 0 1.25rem;font-size:clamp(1.75rem,1.2rem + 2.6vw,3rem);line-height:1.1;font-weight:650;
letter-spacing:-.02em}
h1 i{font-family:Georgia,"Liberation Serif",serif;color:var(--accent);font-weight:400}
dl{display:flex;flex-wrap:wrap;gap:.75rem 2.5rem;margin:0 0 1.5rem}
dt{font-size:.8125rem;color:var(--dim)}
dd{margin:0;font-size:1.125rem;font-weight:550;font-variant-numeric:tabular-nums}
mark{background:none;color:var(--accent);font-weight:600}
mark::before{content:"";display:inline-block;width:.6em;height:.6em;border-radius:50%;background:var(--accent);
margin-right:.45em}
nav{display:flex;flex-wrap:wrap;gap:.5rem}
nav a,nav span,button,input{font:inherit;font-variant-numeric:tabular-nums;padding:.5rem .9rem;border-radius:.5rem;
border:1px solid var(--line);min-height:2.75rem;display:inline-flex;align-items:center}
nav a{color:var(--ink);text-decoration:none}
nav a:hover,button:hover{border-color:var(--accent);color:var(--accent)}
nav span{color:var(--dim);border-style:dashed}
:focus-visible{outline:2px solid var(--accent);outline-offset:2px}
form{display:flex;flex-wrap:wrap;gap:.5rem;align-items:end}
label{font-size:.8125rem;color:var(--dim)}
input{display:block;width:11rem;font-size:1rem;color:var(--ink);background:transparent}
button{background:transparent;color:var(--ink);cursor:pointer}
section{margin:1.75rem 0 0}
ol{display:grid;grid-template-columns:repeat(10,1fr);gap:.5rem;margin:0;padding:0;list-style:none;max-width:60rem}
li{display:grid;align-content:end;text-align:center;font-variant-numeric:tabular-nums}
li::before{content:"";height:calc(var(--part)*2.5rem);background:var(--accent);opacity:.75;
border-radius:.2rem .2rem 0 0;order:-1}
li span{font-size:.75rem;color:var(--dim)}
main{font-family:ui-monospace,"SF Mono",Menlo,Consolas,"Liberation Mono","DejaVu Sans Mono",monospace;margin:2rem 0}
.large{font-size:clamp(1.375rem,.6rem + 4vw,3rem);line-height:1.4;overflow-wrap:normal}
main>b{display:block;font-size:2.5rem;line-height:1;font-weight:500;color:var(--accent);margin-bottom:.75rem}
main>p{position:relative;margin:0 0 .8em;font-size:var(--size);line-height:1.75;padding:0 .5ch;
width:calc(var(--groups)*11ch + .25ch);box-sizing:border-box;
background:linear-gradient(90deg,var(--stripe) 11ch,transparent 11ch) 0 0/22ch 100%;
content-visibility:auto;contain-intrinsic-block-size:calc(var(--rows)*1.75em)}
footer{border-top:1px solid var(--line);padding-top:1.5rem;display:flex;flex-wrap:wrap;gap:1rem 2rem;align-items:end;
justify-content:space-between}
"""
