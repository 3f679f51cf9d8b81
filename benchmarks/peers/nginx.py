"""nginx, as the upstream of all benchmarks and as a peer."""

from collections.abc import Sequence

from .peer import Peer, Place

HTTP = """
daemon off;
worker_processes 1;
pid {folder}/nginx.pid;
error_log {folder}/nginx-error.log;
events {{ worker_connections 4096; }}
http {{
    access_log off;
    keepalive_requests 1000000000;
    default_type text/plain;
    client_body_temp_path {folder}; proxy_temp_path {folder}; fastcgi_temp_path {folder};
    uwsgi_temp_path {folder}; scgi_temp_path {folder};
    {site}
}}
"""

ANSWER = """
    sendfile on; tcp_nopush on; open_file_cache max=16;
    etag off; max_ranges 0; add_header Last-Modified "";
    server {{
        listen 127.0.0.1:{port} backlog=4096;
        error_page 405 =200 /body;  # the answer to other methods than GET
        location / {{ root {folder}; rewrite ^ /body break; }}
    }}
"""

PROXY = """
    upstream origin {{ server 127.0.0.1:{upstream}; keepalive 1024; keepalive_requests 1000000000; }}
    server {{
        listen 127.0.0.1:{port} backlog=4096;
        location / {{
            proxy_pass http://origin;
            proxy_http_version 1.1;
            proxy_set_header Connection "";
            proxy_set_header Host $host;
            {more}
        }}
    }}
"""


STORE = """
    sendfile on; tcp_nopush on; open_file_cache max=16;
    client_max_body_size 0;
    server {{
        listen 127.0.0.1:{port} backlog=4096;
        location / {{ root {folder}; rewrite ^ /body break; }}
        location /answer/ {{ root {folder}; }}
        location /upload {{
            client_body_buffer_size {largest};
            proxy_pass http://unix:{folder}/told;
            proxy_pass_request_body off;
            proxy_set_header Content-Length "";
            proxy_set_header X-Length $request_length;
        }}
    }}
    server {{
        listen unix:{folder}/told;
        location / {{ return 200 $http_x_length; }}
    }}
"""
"""Asked with a body, it first reads all of it, into memory, and then says how long the request was."""
STREAMED = "client_max_body_size 0; proxy_request_buffering off; proxy_max_temp_file_size 0;"


class Nginx(Peer):
    """A plain proxy: keep-alive to the upstream, one worker, no log."""

    name = "nginx"
    install = "apt-get install nginx-light"
    program = "nginx"
    site = PROXY
    more = ""
    """What else is said about proxying."""

    def command(self, program: str, place: Place) -> Sequence[str]:
        site = self.site.format(port=place.port, upstream=place.upstream, folder=place.folder, more=self.more)
        return [program, "-c", place.write("nginx.conf", HTTP.format(folder=place.folder, site=site))]


class NginxAnswer(Nginx):
    """The upstream: one small file for every path, far cheaper than any proxy in front of it."""

    name = "upstream (nginx)"
    site = ANSWER

    def command(self, program: str, place: Place) -> Sequence[str]:
        place.write("body", "x" * place.body_bytes)
        return super().command(program, place)


class NginxBodies(Nginx):
    """A proxy for big bodies: nothing is kept in files. The sizes of its buffers are its own."""

    more = STREAMED


class NginxLargeBuffers(Nginx):
    """The same with fewer and larger reads."""

    name = "nginx, large buffers"
    more = f"""{STREAMED}
        client_body_buffer_size 1m;
        proxy_buffer_size 64k; proxy_buffers 8 256k; proxy_busy_buffers_size 1m;"""


class NginxStore(Nginx):
    """The upstream for big bodies: files of so many MiB, and a place that reads what is sent to it."""

    name = "upstream (nginx)"
    site = STORE

    def __init__(self, sizes: Sequence[int]) -> None:
        self.sizes = sizes

    def command(self, program: str, place: Place) -> Sequence[str]:
        place.write("body", "x" * place.body_bytes)
        (place.folder / "answer").mkdir()
        for size in self.sizes:
            place.write(f"answer/{size << 20}", "x" * (size << 20))
        self.site = STORE.replace("{largest}", f"{max(self.sizes) + 1}m")
        return super().command(program, place)


class NginxWebSocket(Nginx):
    """A proxy for WebSockets: it carries bytes, and looks at no message."""

    more = 'proxy_set_header Upgrade $http_upgrade; proxy_set_header Connection "upgrade";'
