"""A real Orthanc on loopback: its own ports, an empty storage folder, authentication on, TLS where asked.

DICOM over TLS is Orthanc's own. HTTPS ends in a small proxy before it, as hospitals have it, for the web server of
Debian's Orthanc 1.10.1 crashes on its first HTTPS request.
"""

from __future__ import annotations

import json
import os
import secrets
import select
import shutil
import signal
import socket
import ssl
import subprocess
import threading
import time
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

USER, PASSWORD = "reader", "only-for-this-test"
TITLE = "ORTHANC"
BINARY = shutil.which("Orthanc") or next((p for p in ("/usr/sbin/Orthanc",) if Path(p).exists()), None)
PLUGIN = next(
    (
        str(path)
        for folder in ("/usr/share/orthanc/plugins", "/usr/lib/orthanc")
        for path in sorted(Path(folder).glob("libOrthancDicomWeb.so*"))
    ),
    None,
)


def why_no_orthanc() -> str | None:
    """Why these tests cannot run here; None when they can."""
    if BINARY is None:
        return "Orthanc is not installed (Debian: orthanc)"
    return None if PLUGIN else "Orthanc's DICOMweb plugin is not installed (Debian: orthanc-dicomweb)"


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class TlsFront:
    """Takes TLS connections on a port of its own and hands their bytes on to another."""

    def __init__(self, target_port: int, certificate: Path, key: Path) -> None:
        self._target_port = target_port
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._context.load_cert_chain(certificate, key)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._listener.getsockname()[1])
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        # Closing alone would leave the accepting thread waiting.
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                plain, _ = self._listener.accept()
                threading.Thread(target=self._serve, args=(plain,), daemon=True).start()

    def _serve(self, plain: socket.socket) -> None:
        address = ("127.0.0.1", self._target_port)
        with (
            suppress(OSError),
            plain,
            self._context.wrap_socket(plain, server_side=True) as near,
            socket.create_connection(address) as far,
        ):
            while True:
                ready = [near] if near.pending() else select.select([near, far], [], [])[0]
                for one, other in ((near, far), (far, near)):
                    if one in ready:
                        data = one.recv(1 << 16)
                        if not data:
                            return
                        other.sendall(data)


@dataclass
class Orthanc:
    """One server. `root` holds its storage, so that it can be stopped and started again with its content."""

    root: Path
    tls: bool = False
    http_port: int = field(default_factory=free_port)
    dicom_port: int = field(default_factory=free_port)
    move_port: int = field(default_factory=free_port)
    user: str = USER
    front: TlsFront | None = None
    process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        if self.front is not None:
            return f"https://localhost:{self.front.port}/dicom-web"
        return f"http://localhost:{self.http_port}/dicom-web"

    def start(self) -> Orthanc:
        self.root.mkdir(parents=True, exist_ok=True)
        config = self.root / "orthanc.json"
        config.write_text(json.dumps(self._settings()))
        log = (self.root / "orthanc.log").open("ab")
        with log:
            self.process = subprocess.Popen([str(BINARY), str(config)], stdout=log, stderr=log, cwd=self.root)
        end = time.monotonic() + 30
        while time.monotonic() < end:
            if self.process.poll() is not None:
                break
            if all(_listens(port) for port in (self.http_port, self.dicom_port)):
                if self.tls:
                    self.front = TlsFront(self.http_port, *make_certificate(self.root, "localhost"))
                return self
            time.sleep(0.05)
        self.stop()
        raise RuntimeError("Orthanc did not start: " + (self.root / "orthanc.log").read_text()[-2000:])

    def stop(self, how: int = signal.SIGKILL) -> None:
        """Ends this very process."""
        if self.front is not None:
            self.front.close()
            self.front = None
        if self.process is not None:
            if self.process.poll() is None:
                os.kill(self.process.pid, how)
            try:
                self.process.wait(20)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
            self.process = None

    def _settings(self) -> dict[str, object]:
        settings: dict[str, object] = {
            "Name": "test",
            "StorageDirectory": str(self.root / "storage"),
            "IndexDirectory": str(self.root / "storage"),
            "Plugins": [PLUGIN],
            "HttpPort": self.http_port,
            "DicomPort": self.dicom_port,
            "DicomAet": TITLE,
            "DicomCheckCalledAet": True,
            "DicomModalities": {
                "us": {
                    "AET": "SPINEIMG", "Host": "127.0.0.1", "Port": self.move_port, "AllowGet": True, "AllowFind": True,
                    "AllowMove": True,
                },
            },
            "RemoteAccessAllowed": False,
            "AuthenticationEnabled": True,
            "RegisteredUsers": {USER: PASSWORD},
            "DicomWeb": {"Enable": True, "Root": "/dicom-web/"},
            "HttpThreadsCount": 4,
        }  # fmt: skip
        if self.tls:
            certificate, key = make_certificate(self.root, "localhost")
            settings |= {
                "DicomTlsEnabled": True,
                "DicomTlsCertificate": str(certificate),
                "DicomTlsPrivateKey": str(key),
                "DicomTlsTrustedCertificates": str(certificate),
                "DicomTlsRemoteCertificateRequired": False,
            }
        return settings

    # -- nodes ----------------------------------------------------------------------------------------------------

    def config(self, folder: Path) -> Path:
        """A configuration with the nodes web, get and move, and some that are wrong on purpose."""
        secured = f'ca_file = "{self.root / "certificate.pem"}"\n' if self.tls else ""
        dimse = f'kind = "dimse"\nhost = "localhost"\nport = {self.dicom_port}\nae_title = "{TITLE}"\n{secured}'
        dimse += f"tls = {str(self.tls).lower()}\ntimeout_s = 10\n"
        path = folder / f"pacs-{secrets.token_hex(4)}.toml"
        path.write_text(
            f'[nodes.web]\nkind = "dicomweb"\nurl = "{self.url}"\nauth = "basic"\ntimeout_s = 10\n{secured}'
            f"[nodes.get]\n{dimse}"
            f'[nodes.move]\n{dimse}retrieve = "move"\nour_port = {self.move_port}\n'
            f'[nodes.stranger]\n{dimse}our_ae_title = "STRANGER"\n'
            f"[nodes.misnamed]\n{dimse.replace(TITLE, 'NOTORTHANC')}"
        )
        return path


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        probe.settimeout(0.5)
        return probe.connect_ex(("127.0.0.1", port)) == 0


def make_certificate(folder: Path, host: str) -> tuple[Path, Path]:
    """(certificate, key) files, self-signed for this host, kept where they are there already."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import rsa
    from cryptography.x509.oid import NameOID

    folder.mkdir(parents=True, exist_ok=True)
    certificate_file, key_file = folder / "certificate.pem", folder / "key.pem"
    if certificate_file.exists():
        return certificate_file, key_file
    key = rsa.generate_private_key(65537, 2048)  # Orthanc's ciphers need RSA
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, host)])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(host)]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(key, hashes.SHA256())
    )
    certificate_file.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    key_file.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    return certificate_file, key_file
