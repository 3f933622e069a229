"""nginx as a proxy of UDP streams, when it is installed with its stream module (Debian: nginx-light, libnginx-mod-stream).

`python -m bench.reference.nginx UPSTREAM FOLDER` writes its configuration into the folder, says its address, and becomes nginx:
one process, no log. nginx keeps a session for each client, with a socket of its own towards the upstream.
"""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
from pathlib import Path

from bench.processes import Child, clean_environment, python
from service.ready import announce

__all__ = ["NGINX", "find_nginx", "start_nginx"]

# Implementation constants
NGINX = "nginx stream"
ELSEWHERE = "/usr/sbin:/usr/local/sbin"  # not everybody's PATH has them
MODULES = ("/usr/lib/nginx/modules", "/usr/lib64/nginx/modules", "/usr/local/lib/nginx/modules")
MODULE = "ngx_stream_module.so"
CONFIGURATION = """\
{module}
daemon off;
master_process off;
error_log /dev/null crit;
pid {folder}/pid;
worker_rlimit_nofile 65536;
events {{ worker_connections 16384; use epoll; multi_accept on; }}
stream {{
  access_log off;
  server {{
    listen {listen} udp rcvbuf=4m sndbuf=4m;
    proxy_pass {upstream};
    proxy_timeout 1h;
  }}
}}
"""


def find_nginx() -> tuple[str, str] | None:
    """The program, and the line that loads its stream module; None without either."""
    program = shutil.which("nginx") or shutil.which("nginx", path=ELSEWHERE)
    if program is None:
        return None
    built = subprocess.run([program, "-V"], capture_output=True, text=True, check=False).stderr.split()
    if "--with-stream" in built:
        return program, ""
    found = next((Path(folder) / MODULE for folder in MODULES if (Path(folder) / MODULE).exists()), None)
    return None if found is None else (program, f"load_module {found};")


def start_nginx(upstream: str, folder: Path, cpu: int | None) -> Child:
    """`bound["listen"]` is where clients send to."""
    return Child(NGINX, python("-m", "bench.reference.nginx", upstream, str(folder)), clean_environment(), cpu=cpu)


def main() -> None:
    upstream, folder = sys.argv[1:]
    found = find_nginx()
    if found is None:
        sys.exit("there is no nginx with its stream module here")
    program, module = found
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.bind(("127.0.0.1", 0))
        listen = f"127.0.0.1:{probe.getsockname()[1]}"
    file = Path(folder) / "nginx.conf"
    file.write_text(CONFIGURATION.format(module=module, folder=folder, listen=listen, upstream=upstream))
    announce(listen=[listen])  # it listens a moment later; whoever opens flows repeats what was lost
    os.execv(program, [program, "-p", folder, "-c", str(file), "-e", "/dev/null"])


if __name__ == "__main__":
    main()
