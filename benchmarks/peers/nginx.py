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
        }}
    }}
"""


class Nginx(Peer):
    """A plain proxy: keep-alive to the upstream, one worker, no log."""

    name = "nginx"
    install = "apt-get install nginx-light"
    program = "nginx"
    site = PROXY

    def command(self, program: str, place: Place) -> Sequence[str]:
        site = self.site.format(port=place.port, upstream=place.upstream, folder=place.folder)
        return [program, "-c", place.write("nginx.conf", HTTP.format(folder=place.folder, site=site))]


class NginxAnswer(Nginx):
    """The upstream: one small file for every path, far cheaper than any proxy in front of it."""

    name = "upstream (nginx)"
    site = ANSWER

    def command(self, program: str, place: Place) -> Sequence[str]:
        place.write("body", "x" * place.body_bytes)
        return super().command(program, place)
