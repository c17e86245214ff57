"""The style sheet of the pages, inline, so that a page is one response.

`--hue` is the server's colour, `--groups` and `--rows` say how a block of a thousand digits is laid out at this width.
"""

STYLE = """
:root{color-scheme:light dark;--paper:#fbfbf9;--ink:#1c1e26;--dim:#62656f;--line:#dfdfda;--edge:#8a8d96;
--stripe:#0000000a;--light:.5;--chroma:.15}
@media (prefers-color-scheme:dark){:root{--paper:#13151b;--ink:#e4e5ea;--dim:#9a9eaa;--line:#2c2f39;--edge:#6f7380;
--stripe:#ffffff0c;--light:.78;--chroma:.13}}
*{box-sizing:border-box}
body{--accent:oklch(var(--light) var(--chroma) var(--hue));margin:0 auto;padding:2.5rem 1.25rem 4rem;max-width:72rem;
background:var(--paper);color:var(--ink);font:1rem/1.5 system-ui,-apple-system,"Segoe UI",Roboto,sans-serif;
-webkit-text-size-adjust:100%;overflow-wrap:anywhere}
h1{margin:0 0 1.25rem;font-size:clamp(1.75rem,1.2rem + 2.6vw,3rem);line-height:1.1;font-weight:650;
letter-spacing:-.02em}
h1 i{font-family:Georgia,"Liberation Serif",serif;color:var(--accent);font-weight:400}
dl{display:flex;flex-wrap:wrap;gap:.75rem 2.5rem;margin:0 0 1.5rem}
dt,label,h2{font-size:.8125rem;font-weight:400;color:var(--dim)}
dd{margin:0;font-size:1.125rem;font-weight:550;font-variant-numeric:tabular-nums}
mark{background:none;color:var(--accent);font-weight:600}
mark::before{content:"";display:inline-block;width:.6em;height:.6em;border-radius:50%;background:var(--accent);
margin-right:.45em}
nav{display:flex;flex-wrap:wrap;gap:.5rem}
nav a,nav span,button,input{font:inherit;font-variant-numeric:tabular-nums;padding:.5rem .9rem;border-radius:.5rem;
border:1px solid var(--edge);min-height:2.75rem;display:inline-flex;align-items:center;color:var(--ink);
background:transparent;text-decoration:none}
nav a:hover,button:hover{border-color:var(--accent);color:var(--accent)}
nav span{color:var(--dim);border:1px dashed var(--line)}
:focus-visible{outline:2px solid var(--accent);outline-offset:2px}
header form{margin-top:1.25rem}
form{display:flex;flex-wrap:wrap;gap:.5rem;align-items:end}
input{display:block;width:11rem;font-size:1rem}
input::placeholder{color:var(--dim);opacity:1}
button{cursor:pointer}
section{margin:1.75rem 0 0;max-width:26rem}
h2{margin:0 0 .5rem}
ol{display:grid;grid-template-columns:repeat(10,1fr);gap:0;margin:0;padding:0;list-style:none;text-align:center}
li{line-height:1.3;font-variant-numeric:tabular-nums}
li b{display:block;font-weight:600}
li span{font-size:min(.6875rem,3.2vw);color:var(--dim);white-space:nowrap}
li::before{content:"";display:block;height:4rem;margin-bottom:.3rem;background:
linear-gradient(var(--accent),var(--accent)) 50% calc(50% - var(--over)*1rem)/60% calc(var(--size)*2rem) no-repeat,
linear-gradient(var(--edge),var(--edge)) 0 50%/100% 1px no-repeat}
main{font-family:ui-monospace,"SF Mono",Menlo,Consolas,"Liberation Mono","DejaVu Sans Mono",monospace;margin:2rem 0}
.large{font-size:clamp(1rem,6.2vw,3.35rem);line-height:1.35;overflow-wrap:normal}
main>b{display:block;font-size:2.5rem;line-height:1;font-weight:500;color:var(--accent);
margin:0 0 .75rem var(--gutter)}
main>p{position:relative;box-sizing:content-box;width:calc(var(--groups)*11ch - .5ch);margin:0 0 .9em;
padding:0 0 0 calc(var(--gutter) + .5ch);font-size:var(--type);line-height:1.75;overflow-wrap:normal;
background:linear-gradient(var(--paper),var(--paper)) 0 0/var(--gutter) 100% no-repeat,
linear-gradient(90deg,var(--stripe) 11ch,transparent 11ch) var(--gutter) 0/22ch 100%;
content-visibility:auto;contain-intrinsic-block-size:calc(var(--rows)*1.75em)}
.blocks>p::before{content:attr(data-at);color:var(--dim);font-size:.75em;display:block;line-height:2.3333}
footer p{margin:0}
footer{margin-top:2.5rem;border-top:1px solid var(--line);padding-top:1.5rem;display:flex;flex-wrap:wrap;gap:1rem 2rem;
align-items:end;justify-content:space-between}
body{--groups:4;--rows:26;--gutter:0rem;--type:min(.9375rem,calc((100vw - 2.5rem)/26.8))}
@media (min-width:40rem){
body{--groups:5;--rows:20;--type:clamp(.9375rem,2.4vw,1.25rem)}
.blocks{--gutter:calc(var(--type)*4.8)}
.blocks>p::before{position:absolute;left:0;width:calc(var(--gutter) - 1em);text-align:right}}
@media (min-width:56rem){
body{display:grid;grid-template-columns:1fr 24rem;column-gap:3rem;align-items:end}
header:not(:has(+section)),main,footer{grid-column:1/-1}
section{margin:0}}
@media (min-width:70rem){body{--groups:10;--rows:10;--type:.9375rem}}
"""
