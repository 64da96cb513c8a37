"""Limits: how much work may one mail's signatures cause?

One table of bounds for DKIM and ARC.  What passes a bound is reported with a reason, and costs no more work;
nothing here is a judgement about the mail.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds of DKIM and ARC work for one mail.

    Attributes:
        signatures: DKIM signatures verified; the rest is reported as `policy`, not evaluated.
        signature_fields: DKIM-Signature fields read at all.
        header_fields: fields in the header; above it no signature is evaluated.
        header_octets: octets in the header, likewise.
        tag_list_octets: octets of one tag list (a signature field).
        tags: tags in one tag list.
        signed_names: names in h=.
        key_records: key records tried at one name.
        rsa_bits_least: shortest RSA modulus (RFC 8301 section 3.2).
        rsa_bits_most: longest RSA modulus.
        clock_skew: seconds by which two clocks may differ, for t= and x=.
        arc_sets: ARC sets in a chain (RFC 8617 section 4.2.1).
    """

    signatures: int = 8
    signature_fields: int = 100
    header_fields: int = 10_000
    header_octets: int = 2 * 1024 * 1024
    tag_list_octets: int = 64 * 1024
    tags: int = 100
    signed_names: int = 2_000
    key_records: int = 4
    rsa_bits_least: int = 1024
    rsa_bits_most: int = 8192
    clock_skew: int = 300
    arc_sets: int = 50


DEFAULT_LIMITS = Limits()
