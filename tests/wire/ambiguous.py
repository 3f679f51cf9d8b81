"""Requests that some server reads in another way than the next one."""

from collections.abc import Iterator

HEAD = b"POST /x HTTP/1.1\r\nHost: gw.test\r\n"
SMUGGLED = b"GET /smuggled HTTP/1.1\r\nHost: gw.test\r\n\r\n"
CHUNKED = HEAD + b"Transfer-Encoding: chunked\r\n\r\n"


def framed(*fields: bytes, body: bytes = b"") -> bytes:
    return HEAD + b"".join(field + b"\r\n" for field in fields) + b"\r\n" + body


def hosted(*hosts: bytes, line: bytes = b"GET /x HTTP/1.1") -> bytes:
    return line + b"\r\n" + b"".join(b"Host:" + host + b"\r\n" for host in hosts) + b"\r\n"


CL, TE = b"Content-Length: ", b"Transfer-Encoding: "
LAST = b"0\r\n\r\n"

BAD: dict[str, bytes] = {
    # Two lengths, or one that is no number.
    "length_and_chunked": framed(CL + b"5", TE + b"chunked", body=LAST + SMUGGLED),
    "chunked_and_length": framed(TE + b"chunked", CL + b"5", body=LAST + SMUGGLED),
    "length_and_identity": framed(CL + b"5", TE + b"identity", body=b"hello"),
    "lengths_that_differ": framed(CL + b"5", CL + b"0", body=b"hello"),
    "lengths_that_agree": framed(CL + b"5", CL + b"5", body=b"hello"),
    "length_as_list": framed(CL + b"5, 5", body=b"hello"),
    "length_with_plus": framed(CL + b"+5", body=b"hello"),
    "length_negative": framed(CL + b"-5", body=b"hello"),
    "length_hexadecimal": framed(CL + b"0x5", body=b"hello"),
    "length_with_space": framed(CL + b"5 0", body=b"hello" + SMUGGLED),
    "length_with_underscore": framed(CL + b"1_0", body=b"hello" + SMUGGLED),
    "length_fraction": framed(CL + b"5.0", body=b"hello"),
    "length_empty": framed(CL, body=SMUGGLED),
    "length_arabic": framed(CL + "\u0665".encode(), body=b"hello"),
    "length_too_large": framed(CL + b"18446744073709551621", body=b"hello"),
    "length_of_5000_digits": framed(CL + b"0" * 4999 + b"5", body=b"hello"),
    "length_quoted": framed(CL + b'"5"', body=b"hello"),
    # Codings other than exactly chunked.
    "coding_unknown": framed(TE + b"xchunked", body=LAST + SMUGGLED),
    "coding_gzip": framed(TE + b"gzip", body=LAST + SMUGGLED),
    "coding_gzip_chunked": framed(TE + b"gzip, chunked", body=LAST + SMUGGLED),
    "coding_chunked_identity": framed(TE + b"chunked, identity", body=LAST + SMUGGLED),
    "coding_identity_chunked": framed(TE + b"identity, chunked", body=LAST + SMUGGLED),
    "coding_twice": framed(TE + b"chunked, chunked", body=LAST + SMUGGLED),
    "coding_in_two_fields": framed(TE + b"chunked", TE + b"chunked", body=LAST + SMUGGLED),
    "coding_in_two_fields_that_differ": framed(TE + b"identity", TE + b"chunked", body=LAST + SMUGGLED),
    "coding_quoted": framed(TE + b'"chunked"', body=LAST + SMUGGLED),
    "coding_with_parameter": framed(TE + b"chunked;a=b", body=LAST + SMUGGLED),
    "coding_with_comma": framed(TE + b",chunked", body=LAST + SMUGGLED),
    "coding_with_vertical_tab": framed(TE + b"\x0bchunked", body=LAST + SMUGGLED),
    "coding_empty": framed(TE, body=LAST + SMUGGLED),
    "coding_in_http_10": (
        b"POST /x HTTP/1.0\r\nHost: gw.test\r\nTransfer-Encoding: chunked\r\n\r\n" + LAST + SMUGGLED
    ),
    # Lines.
    "folded_field": framed(b"X: a\r\n b"),
    "folded_coding": framed(b"Transfer-Encoding:\r\n chunked", body=LAST + SMUGGLED),
    "folded_first_line": b"GET /x HTTP/1.1\r\n X: a\r\nHost: gw.test\r\n\r\n",
    "bare_lf_ends_fields": b"GET /x HTTP/1.1\nHost: gw.test\n\n",
    "bare_lf_in_field": framed(b"X: a\nTransfer-Encoding: chunked", CL + b"5", body=b"hello"),
    "bare_lf_ends_head": HEAD + b"\nGET /smuggled HTTP/1.1\r\nHost: gw.test\r\n\r\n",
    "bare_cr_in_field": framed(b"X: a\rTransfer-Encoding: chunked"),
    "bare_cr_ends_line": b"GET /x HTTP/1.1\rHost: gw.test\r\n\r\n",
    "two_crs": framed(b"X: a\r"),
    "space_before_colon": framed(b"Transfer-Encoding : chunked", body=LAST + SMUGGLED),
    "tab_before_colon": framed(b"Content-Length\t: 5", body=b"hello"),
    "space_in_name": framed(b"Transfer Encoding: chunked"),
    "no_colon": framed(b"Content-Length 5"),
    "no_name": framed(b": 5"),
    "name_with_nul": framed(b"X\0: a"),
    "name_not_ascii": framed(b"X\xe9: a"),
    "name_with_slash": framed(b"X/Y: a"),
    "nul": framed(b"X: a\0b"),
    "control": framed(b"X: a\x08b"),
    "delete": framed(b"X: a\x7fb"),
    # Whose request it is.
    "host_missing": hosted(),
    "host_twice": hosted(b" gw.test", b" gw.test"),
    "hosts_that_differ": hosted(b" gw.test", b" other.test"),
    "host_empty": hosted(b""),
    "host_list": hosted(b" gw.test, other.test"),
    "host_with_path": hosted(b" gw.test/x"),
    "host_with_user": hosted(b" me@gw.test"),
    "host_with_space": hosted(b" gw test"),
    "host_with_query": hosted(b" gw.test?x"),
    "host_with_fragment": hosted(b" gw.test#x"),
    "host_with_two_ports": hosted(b" gw.test:80:80"),
    "host_with_name_for_port": hosted(b" gw.test:http"),
    "host_with_open_bracket": hosted(b" [::1"),
    "host_percent_encoded": hosted(b" gw%2etest"),
    "host_disagrees_with_target": hosted(b" gw.test", line=b"GET http://other.test/x HTTP/1.1"),
    "host_missing_beside_target": hosted(line=b"GET http://gw.test/x HTTP/1.1"),
    "target_with_user": hosted(b" gw.test", line=b"GET http://me@gw.test/x HTTP/1.1"),
    "target_of_another_scheme": hosted(b" gw.test", line=b"GET ftp://gw.test/x HTTP/1.1"),
    # First lines.
    "target_relative": hosted(b" gw.test", line=b"GET x/x HTTP/1.1"),
    "target_star": hosted(b" gw.test", line=b"OPTIONS * HTTP/1.1"),
    "target_with_space": hosted(b" gw.test", line=b"GET /x /y HTTP/1.1"),
    "target_with_nul": hosted(b" gw.test", line=b"GET /x\0 HTTP/1.1"),
    "target_not_ascii": hosted(b" gw.test", line=b"GET /x\xe9 HTTP/1.1"),
    "target_with_fragment": hosted(b" gw.test", line=b"GET /x#y HTTP/1.1"),
    "tunnel": hosted(b" gw.test:443", line=b"CONNECT gw.test:443 HTTP/1.1"),
    "tunnel_to_a_path": hosted(b" gw.test", line=b"CONNECT /x HTTP/1.1"),
    "method_in_lower_case": hosted(b" gw.test", line=b"get /x HTTP/1.1"),
    "method_with_tab": hosted(b" gw.test", line=b"GET\t/x HTTP/1.1"),
    "method_with_colon": hosted(b" gw.test", line=b"GE:T /x HTTP/1.1"),
    "method_missing": hosted(b" gw.test", line=b" /x HTTP/1.1"),
    "version_missing": b"GET /x\r\n\r\n",
    "version_in_lower_case": hosted(b" gw.test", line=b"GET /x http/1.1"),
    "version_of_three_parts": hosted(b" gw.test", line=b"GET /x HTTP/1.1.1"),
    "version_with_leading_zero": hosted(b" gw.test", line=b"GET /x HTTP/01.1"),
    "version_of_nothing": hosted(b" gw.test", line=b"GET /x HTTP/"),
    "version_0_9": hosted(b" gw.test", line=b"GET /x HTTP/0.9"),
    "version_1_2": hosted(b" gw.test", line=b"GET /x HTTP/1.2"),
    "version_2": hosted(b" gw.test", line=b"GET /x HTTP/2.0"),
    "preface_of_http_2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "tls": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
    "proxy_protocol": b"PROXY TCP4 192.0.2.1 192.0.2.2 1 2\r\n" + hosted(b" gw.test"),
    # Bodies in chunks.
    "chunk_size_0x": CHUNKED + b"0x5\r\nhello\r\n" + LAST,
    "chunk_size_with_space": CHUNKED + b"5 ;ext\r\nhello\r\n" + LAST,
    "chunk_size_after_space": CHUNKED + b" 5\r\nhello\r\n" + LAST,
    "chunk_size_negative": CHUNKED + b"-5\r\nhello\r\n" + LAST,
    "chunk_size_with_plus": CHUNKED + b"+5\r\nhello\r\n" + LAST,
    "chunk_size_with_underscore": CHUNKED + b"0_5\r\nhello\r\n" + LAST,
    "chunk_size_empty": CHUNKED + b"\r\nhello\r\n" + LAST,
    "chunk_size_of_extension_only": CHUNKED + b";a=b\r\nhello\r\n" + LAST,
    "chunk_size_too_large": CHUNKED + b"10000000000000005\r\nhello\r\n" + LAST,
    "chunk_size_no_number": CHUNKED + b"five\r\nhello\r\n" + LAST,
    "chunk_size_ends_in_lf": CHUNKED + b"5\nhello\r\n" + LAST,
    "chunk_size_ends_in_cr": CHUNKED + b"5\rhello\r\n" + LAST,
    "chunk_extension_with_lf": CHUNKED + b"5;a\nb\r\nhello\r\n" + LAST,
    "chunk_extension_with_cr": CHUNKED + b"5;a\rb\r\nhello\r\n" + LAST,
    "chunk_without_end": CHUNKED + b"5\r\nhello" + LAST,
    "chunk_that_ends_in_lf": CHUNKED + b"5\r\nhello\n" + LAST,
    "chunk_that_ends_in_something": CHUNKED + b"5\r\nhelloXX" + LAST,
    "chunk_that_is_longer": CHUNKED + b"5\r\nhello!\r\n" + LAST,
    "trailer_with_length": CHUNKED + b"0\r\nContent-Length: 5\r\n\r\n",
    "trailer_with_coding": CHUNKED + b"0\r\nTransfer-Encoding: chunked\r\n\r\n",
    "trailer_with_bare_lf": CHUNKED + b"0\r\nX: a\n\r\n",
    "trailer_folded": CHUNKED + b"0\r\nX: a\r\n b\r\n\r\n",
    "trailer_without_colon": CHUNKED + b"0\r\nX\r\n\r\n",
    # A way out of HTTP/1.1.
    "upgrade_with_two_framings": framed(b"Upgrade: h2c", b"Connection: upgrade", CL + b"5", TE + b"chunked"),
    "upgrade_with_two_lengths": framed(b"Upgrade: h2c", b"Connection: upgrade", CL + b"5", CL + b"6"),
}
"""By name; see `cases`."""

NOT_SPOKEN = {"version_missing", "version_0_9", "version_2"}
"""These get 505, all others 400."""

GOOD: dict[str, bytes] = {
    "empty_lines_before": b"\r\n\r\n" + hosted(b" gw.test"),
    "leading_zeros": framed(CL + b"0005", body=b"hello"),
    "coding_in_upper_case": framed(TE + b"CHUNKED", body=b"5\r\nhello\r\n" + LAST),
    "chunk_extension": CHUNKED + b'5;a="b;c"\r\nhello\r\n' + LAST,
    "chunk_size_leading_zeros": CHUNKED + b"00005\r\nhello\r\n0\r\n\r\n",
    "trailer": CHUNKED + b"5\r\nhello\r\n0\r\nX-Checksum: 1\r\n\r\n",
    "target_absolute": hosted(b" gw.test", line=b"GET http://gw.test/x HTTP/1.1"),
    "http_10": hosted(b" gw.test", line=b"GET /x HTTP/1.0"),
    "host_missing_in_http_10": hosted(line=b"GET /x HTTP/1.0"),
}
"""Odd and valid."""


def cases(table: dict[str, bytes]) -> Iterator[tuple[str, bytes]]:
    """Names and bytes; the path of each is `/x-NAME`, that of a request hidden in it `/smuggled-NAME`."""
    for name, data in table.items():
        end = b"-" + name.encode()
        yield name, data.replace(b"/x", b"/x" + end, 1).replace(b"/smuggled", b"/smuggled" + end)
