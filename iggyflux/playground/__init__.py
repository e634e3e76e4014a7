"""The playground: a page in the browser that shows what a mapping makes of samples while it is written.

`service` answers questions about a text by the language service, `worker` and `desk` let it do so in a process with
limits, `files` is the one folder, `gallery` the ready mappings, `app` the web server, `static` the page.
"""
