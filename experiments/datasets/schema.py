"""The columns of NSL-KDD: names, kinds, public bounds and vocabularies.

Names and meaning after the KDD Cup 1999 task description; attack families after the same contest's scoring (so that
KDDTest+ counts 7458 DoS, 2421 probes, 2754 R2L and 200 U2R, as Tavallaee et al., CISDA 2009, print them). The bounds
come from the definition of a column (a window of 100 or 256 connections, a rate, a 32-bit byte count, a day of
capture), never from the records, so that they may be known to everyone.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Kind = Literal["count", "flag", "rate", "protocol", "service", "state"]
Family = Literal["normal", "DoS", "Probe", "R2L", "U2R"]


@dataclass(frozen=True)
class Column:
    """One of the 41 features.

    Attributes:
        name: Name as in the KDD Cup's task description.
        kind: "count" (integer), "flag" (0 or 1), "rate" (two decimals in [0, 1]), or one of the three vocabularies.
        minimum: Least value allowed (0 for the vocabularies).
        maximum: Greatest value allowed (number of words less one for the vocabularies).
    """

    name: str
    kind: Kind
    minimum: int
    maximum: int

    @property
    def is_numeric(self) -> bool:
        """Whether the column stands in `Records.numeric`."""
        return self.kind in ("count", "flag", "rate")


PROTOCOLS: tuple[str, ...] = ("icmp", "tcp", "udp")

_SERVICES = """
    IRC X11 Z39_50 aol auth bgp courier csnet_ns ctf daytime discard domain domain_u echo eco_i ecr_i efs exec finger
    ftp ftp_data gopher harvest hostnames http http_2784 http_443 http_8001 imap4 iso_tsap klogin kshell ldap link login
    mtp name netbios_dgm netbios_ns netbios_ssn netstat nnsp nntp ntp_u other pm_dump pop_2 pop_3 printer private red_i
    remote_job rje shell smtp sql_net ssh sunrpc supdup systat telnet tftp_u tim_i time urh_i urp_i uucp uucp_path vmnet
    whois
"""
SERVICES: tuple[str, ...] = tuple(_SERVICES.split())

FLAGS: tuple[str, ...] = ("OTH", "REJ", "RSTO", "RSTOS0", "RSTR", "S0", "S1", "S2", "S3", "SF", "SH")

_FAMILIES: dict[Family, str] = {
    "normal": "normal",
    "DoS": "back land neptune pod smurf teardrop apache2 mailbomb processtable udpstorm",
    "Probe": "ipsweep nmap portsweep satan mscan saint",
    "R2L": "ftp_write guess_passwd imap multihop phf spy warezclient warezmaster "
    "named sendmail snmpgetattack snmpguess worm xlock xsnoop",
    "U2R": "buffer_overflow loadmodule perl rootkit httptunnel ps sqlattack xterm",
}

FAMILY_OF: dict[str, Family] = {name: family for family, names in _FAMILIES.items() for name in names.split()}
"""Attack name -> family."""

ATTACKS: tuple[str, ...] = tuple(FAMILY_OF)
"""Attack names in the order of their codes; code 0 is "normal"."""

FAMILIES: tuple[Family, ...] = tuple(_FAMILIES)

_TEST_ONLY = """
    apache2 mailbomb processtable udpstorm mscan saint named sendmail snmpgetattack snmpguess worm xlock xsnoop
    httptunnel ps sqlattack xterm
"""
TEST_ONLY: frozenset[str] = frozenset(_TEST_ONLY.split())
"""The 17 attacks that only KDDTest+ holds."""

DIFFICULTY_MAX = 21
"""The last column counts how many of 21 learners labelled the record correctly."""

_DAY = 86_400
_BYTES = 2**31 - 1

COLUMNS: tuple[Column, ...] = (
    Column("duration", "count", 0, _DAY),
    Column("protocol_type", "protocol", 0, len(PROTOCOLS) - 1),
    Column("service", "service", 0, len(SERVICES) - 1),
    Column("flag", "state", 0, len(FLAGS) - 1),
    Column("src_bytes", "count", 0, _BYTES),
    Column("dst_bytes", "count", 0, _BYTES),
    Column("land", "flag", 0, 1),
    Column("wrong_fragment", "count", 0, 255),
    Column("urgent", "count", 0, 255),
    Column("hot", "count", 0, 1023),
    Column("num_failed_logins", "count", 0, 255),
    Column("logged_in", "flag", 0, 1),
    Column("num_compromised", "count", 0, 65_535),
    Column("root_shell", "flag", 0, 1),
    # Documented as a flag; the published files hold 2 as well.
    Column("su_attempted", "count", 0, 2),
    Column("num_root", "count", 0, 65_535),
    Column("num_file_creations", "count", 0, 1023),
    Column("num_shells", "count", 0, 255),
    Column("num_access_files", "count", 0, 255),
    Column("num_outbound_cmds", "count", 0, 255),
    Column("is_host_login", "flag", 0, 1),
    Column("is_guest_login", "flag", 0, 1),
    Column("count", "count", 0, 511),
    Column("srv_count", "count", 0, 511),
    Column("serror_rate", "rate", 0, 1),
    Column("srv_serror_rate", "rate", 0, 1),
    Column("rerror_rate", "rate", 0, 1),
    Column("srv_rerror_rate", "rate", 0, 1),
    Column("same_srv_rate", "rate", 0, 1),
    Column("diff_srv_rate", "rate", 0, 1),
    Column("srv_diff_host_rate", "rate", 0, 1),
    Column("dst_host_count", "count", 0, 255),
    Column("dst_host_srv_count", "count", 0, 255),
    Column("dst_host_same_srv_rate", "rate", 0, 1),
    Column("dst_host_diff_srv_rate", "rate", 0, 1),
    Column("dst_host_same_src_port_rate", "rate", 0, 1),
    Column("dst_host_srv_diff_host_rate", "rate", 0, 1),
    Column("dst_host_serror_rate", "rate", 0, 1),
    Column("dst_host_srv_serror_rate", "rate", 0, 1),
    Column("dst_host_rerror_rate", "rate", 0, 1),
    Column("dst_host_srv_rerror_rate", "rate", 0, 1),
)

NUMERIC: tuple[Column, ...] = tuple(column for column in COLUMNS if column.is_numeric)
"""The 38 columns of `Records.numeric`, in its order."""

NUMERIC_NAMES: tuple[str, ...] = tuple(column.name for column in NUMERIC)

CATEGORICAL: tuple[Column, ...] = tuple(column for column in COLUMNS if not column.is_numeric)
"""protocol_type, service, flag: the columns of `Records.categorical`, in its order."""

VOCABULARIES: tuple[tuple[str, ...], tuple[str, ...], tuple[str, ...]] = (PROTOCOLS, SERVICES, FLAGS)
"""Words of the three columns of `Records.categorical`; a code is the index of its word."""

FIELDS: tuple[str, ...] = (*(column.name for column in COLUMNS), "attack", "difficulty")
"""The 43 fields of a line."""
