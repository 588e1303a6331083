//! The PROXY protocol, versions 1 and 2: what a load balancer writes before the client's first byte.
//!
//! What: from bytes to the address that it announces. Why pure: every cut of the bytes can be tried.
//! What not: whether to believe it. That is the caller's to know, by who is at the other end.
//!
//! Source: "The PROXY protocol, versions 1 & 2" (haproxy.org, proxy-protocol.txt), sections 2.1, 2.2
//! and 2.2.3.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// Section 2.1: the longest line of version 1 incl. CRLF, bytes.
pub const V1_BYTES: usize = 107;
/// Section 2.2 lets a header announce up to 65,535 bytes of addresses and TLVs. Those that exist are
/// far smaller (AWS: an endpoint's id; with a client certificate's names some hundreds), and nobody
/// shall make us hold more before we know who it is.
pub const V2_BYTES: usize = 4096;

const V1_SIGNATURE: &[u8] = b"PROXY ";
const V2_SIGNATURE: &[u8; 12] = b"\r\n\r\n\0\r\nQUIT\n";
/// Signature, version and command, family, length.
const V2_FIXED_BYTES: usize = 16;
/// `PROXY UNKNOWN` CRLF, the shortest line there is.
const V1_SHORTEST_BYTES: usize = 15;
/// Section 2.2.3.
const TLV_CRC32C: u8 = 0x03;

/// What a header says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Header {
    /// Nobody is announced: LOCAL (the proxy speaks for itself, as in its health checks), UNKNOWN, or
    /// a family that has no IP address. The connection's own address is the client's.
    Own,
    /// The client, and the address that it connected to. IPv4 within IPv6 is told as IPv4.
    Announced {
        /// Who connected.
        client: SocketAddr,
        /// Where to.
        server: SocketAddr,
    },
}

/// How far the bytes go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Progress {
    /// So many more bytes belong to the header for certain: who reads no more than these takes
    /// nothing of what follows it.
    NeedMore(usize),
    /// The header, and its length in bytes.
    Complete(Header, usize),
}

/// The bytes are no header; the connection is to be closed (section 2: "must abort").
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Malformed;

/// Reads a header from the beginning of `input`. Errors: it does not begin with one.
pub fn read(input: &[u8]) -> Result<Progress, Malformed> {
    if is_begun(input, V2_SIGNATURE) {
        return read_v2(input);
    }
    if is_begun(input, V1_SIGNATURE) {
        return read_v1(input);
    }
    Err(Malformed)
}

/// One of the two begins with the other.
fn is_begun(input: &[u8], signature: &[u8]) -> bool {
    input.iter().zip(signature).all(|(one, other)| one == other)
}

fn read_v1(input: &[u8]) -> Result<Progress, Malformed> {
    let within = input.get(..V1_BYTES).unwrap_or(input);
    let Some(end) = within.iter().position(|byte| *byte == b'\n') else {
        if within.len() == V1_BYTES {
            return Err(Malformed);
        }
        let end_bytes = if within.last() == Some(&b'\r') { 1 } else { 2 };
        let missing = V1_SHORTEST_BYTES.saturating_sub(within.len());
        return Ok(Progress::NeedMore(
            missing.max(end_bytes).min(V1_BYTES - within.len()),
        ));
    };
    let line = within.get(..end).and_then(|line| line.strip_suffix(b"\r"));
    let text = line
        .and_then(|line| std::str::from_utf8(line).ok())
        .ok_or(Malformed)?;
    Ok(Progress::Complete(v1_header(text)?, end + 1))
}

fn v1_header(line: &str) -> Result<Header, Malformed> {
    let mut words = line.split(' ').skip(1);
    let family = words.next().ok_or(Malformed)?;
    if family == "UNKNOWN" {
        return Ok(Header::Own); // Section 2.1: what follows is to be ignored.
    }
    let mut next = || words.next().ok_or(Malformed);
    let (from, to) = (v1_address(family, next()?)?, v1_address(family, next()?)?);
    let (from_port, to_port) = (v1_port(next()?)?, v1_port(next()?)?);
    if words.next().is_some() {
        return Err(Malformed);
    }
    Ok(announced(from, from_port, to, to_port))
}

fn v1_address(family: &str, text: &str) -> Result<IpAddr, Malformed> {
    match family {
        "TCP4" => text.parse().map(IpAddr::V4).map_err(|_| Malformed),
        "TCP6" => text.parse().map(IpAddr::V6).map_err(|_| Malformed),
        _ => Err(Malformed),
    }
}

/// Section 2.1: decimal, no leading zeros, no sign.
fn v1_port(text: &str) -> Result<u16, Malformed> {
    let is_plain = text.bytes().all(|byte| byte.is_ascii_digit());
    if !is_plain || (text.len() > 1 && text.starts_with('0')) {
        return Err(Malformed);
    }
    text.parse().map_err(|_| Malformed)
}

fn read_v2(input: &[u8]) -> Result<Progress, Malformed> {
    let Some((
        &[
            _,
            _,
            _,
            _,
            _,
            _,
            _,
            _,
            _,
            _,
            _,
            _,
            version,
            family,
            high,
            low,
        ],
        _,
    )) = input.split_first_chunk::<V2_FIXED_BYTES>()
    else {
        // Before the first byte it may become one of version 1, which may be a byte shorter.
        let shortest = if input.is_empty() {
            V1_SHORTEST_BYTES
        } else {
            V2_FIXED_BYTES
        };
        return Ok(Progress::NeedMore(shortest - input.len()));
    };
    let bytes = V2_FIXED_BYTES + usize::from(u16::from_be_bytes([high, low]));
    if version >> 4 != 2 || bytes > V2_BYTES {
        return Err(Malformed);
    }
    let is_local = match version & 0x0f {
        0 => true,
        1 => false,
        _ => return Err(Malformed),
    };
    let Some(header) = input.get(..bytes) else {
        return Ok(Progress::NeedMore(bytes - input.len()));
    };
    let rest = header.get(V2_FIXED_BYTES..).ok_or(Malformed)?;
    let (found, tlvs) = v2_addresses(family, rest, is_local)?;
    check_tlvs(header, bytes - tlvs.len())?;
    Ok(Progress::Complete(
        if is_local { Header::Own } else { found },
        bytes,
    ))
}

/// Section 2.2: family and transport; what follows the addresses are TLVs.
fn v2_addresses(family: u8, rest: &[u8], is_local: bool) -> Result<(Header, &[u8]), Malformed> {
    match family {
        0x11 => {
            let (from, rest) = rest.split_first_chunk::<4>().ok_or(Malformed)?;
            let (to, rest) = rest.split_first_chunk::<4>().ok_or(Malformed)?;
            let (from, to) = (Ipv4Addr::from(*from), Ipv4Addr::from(*to));
            let (from_port, to_port, tlvs) = v2_ports(rest)?;
            Ok((announced(from.into(), from_port, to.into(), to_port), tlvs))
        }
        0x21 => {
            let (from, rest) = rest.split_first_chunk::<16>().ok_or(Malformed)?;
            let (to, rest) = rest.split_first_chunk::<16>().ok_or(Malformed)?;
            let (from, to) = (Ipv6Addr::from(*from), Ipv6Addr::from(*to));
            let (from_port, to_port, tlvs) = v2_ports(rest)?;
            Ok((announced(from.into(), from_port, to.into(), to_port), tlvs))
        }
        // UNSPEC: "the receiver should ignore the address block": all of it may be TLVs or not.
        0x00 => Ok((Header::Own, &[])),
        // AF_UNIX, stream or datagram: two paths of 108 bytes.
        0x31 | 0x32 => Ok((Header::Own, rest.get(216..).ok_or(Malformed)?)),
        // Of LOCAL the family is to be ignored; a datagram over TCP, or an unknown one, is no header.
        _ if is_local => Ok((Header::Own, &[])),
        _ => Err(Malformed),
    }
}

fn v2_ports(rest: &[u8]) -> Result<(u16, u16, &[u8]), Malformed> {
    let (from, rest) = rest.split_first_chunk().ok_or(Malformed)?;
    let (to, rest) = rest.split_first_chunk().ok_or(Malformed)?;
    Ok((u16::from_be_bytes(*from), u16::from_be_bytes(*to), rest))
}

fn announced(from: IpAddr, from_port: u16, to: IpAddr, to_port: u16) -> Header {
    Header::Announced {
        client: SocketAddr::new(from.to_canonical(), from_port),
        server: SocketAddr::new(to.to_canonical(), to_port),
    }
}

/// They are skipped, but for the checksum: section 2.2.3 wants it checked by who knows it.
fn check_tlvs(header: &[u8], begin: usize) -> Result<(), Malformed> {
    let mut at = begin;
    while let Some(rest) = header.get(at..).filter(|rest| !rest.is_empty()) {
        let (&[kind, high, low], value) = rest.split_first_chunk::<3>().ok_or(Malformed)?;
        let length = usize::from(u16::from_be_bytes([high, low]));
        let value = value.get(..length).ok_or(Malformed)?;
        if kind == TLV_CRC32C {
            let told: [u8; 4] = value.try_into().map_err(|_| Malformed)?;
            if crc32c(header, at + 3) != u32::from_be_bytes(told) {
                return Err(Malformed);
            }
        }
        at += 3 + length;
    }
    Ok(())
}

/// RFC 4960 appendix B, over the header with the checksum's own four bytes (at `hole`) as zeros. Bit
/// by bit: it is once per connection, and hardly any proxy sends it.
fn crc32c(header: &[u8], hole: usize) -> u32 {
    const REVERSED: u32 = 0x82f6_3b78;
    let crc = header.iter().enumerate().fold(u32::MAX, |crc, (at, byte)| {
        let is_hole = (hole..hole + 4).contains(&at);
        let mixed = crc ^ u32::from(if is_hole { 0 } else { *byte });
        (0..8).fold(mixed, |crc, _| {
            if crc & 1 == 1 {
                (crc >> 1) ^ REVERSED
            } else {
                crc >> 1
            }
        })
    });
    !crc
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing)]
mod tests {
    use super::*;

    fn complete(client: &str, server: &str, bytes: usize) -> Progress {
        let (client, server) = (client.parse().unwrap(), server.parse().unwrap());
        Progress::Complete(Header::Announced { client, server }, bytes)
    }

    fn v2(command: u8, family: u8, rest: &[u8]) -> Vec<u8> {
        let length = u16::try_from(rest.len()).unwrap().to_be_bytes();
        [
            V2_SIGNATURE.as_slice(),
            &[0x20 | command, family],
            &length,
            rest,
        ]
        .concat()
    }

    const V4: [u8; 12] = [192, 0, 2, 1, 198, 51, 100, 2, 0xdc, 0x04, 0x02, 0x4b];

    #[test]
    fn version_1() {
        let line = b"PROXY TCP4 192.0.2.1 198.51.100.2 56324 587\r\nEHLO x\r\n";
        assert_eq!(
            read(line),
            Ok(complete("192.0.2.1:56324", "198.51.100.2:587", 45))
        );
        let line = b"PROXY TCP6 2001:db8::1 2001:db8::2 1 465\r\n";
        assert_eq!(
            read(line),
            Ok(complete("[2001:db8::1]:1", "[2001:db8::2]:465", 42))
        );
        let mapped = b"PROXY TCP6 ::ffff:192.0.2.1 ::ffff:198.51.100.2 1 465\r\n";
        assert_eq!(
            read(mapped),
            Ok(complete("192.0.2.1:1", "198.51.100.2:465", 55))
        );
        for unknown in [
            "PROXY UNKNOWN\r\n",
            "PROXY UNKNOWN ffff::1 ffff::2 65535 65535\r\n",
        ] {
            let whole = Ok(Progress::Complete(Header::Own, unknown.len()));
            assert_eq!(read(unknown.as_bytes()), whole);
        }
    }

    #[test]
    fn version_1_is_taken_to_the_letter() {
        for bad in [
            "PROXY TCP4 192.0.2.1 198.51.100.2 56324 587\n",
            "PROXY TCP4 192.0.2.1 198.51.100.2 56324\r\n",
            "PROXY TCP4 192.0.2.1 198.51.100.2 56324 587 x\r\n",
            "PROXY TCP4  192.0.2.1 198.51.100.2 56324 587\r\n",
            "PROXY TCP4 192.0.2.01 198.51.100.2 56324 587\r\n",
            "PROXY TCP4 192.0.2.1 198.51.100.2 056324 587\r\n",
            "PROXY TCP4 192.0.2.1 198.51.100.2 +5632 587\r\n",
            "PROXY TCP4 192.0.2.1 198.51.100.2 65536 587\r\n",
            "PROXY TCP4 2001:db8::1 2001:db8::2 1 465\r\n",
            "PROXY TCP6 192.0.2.1 198.51.100.2 1 465\r\n",
            "PROXY UDP4 192.0.2.1 198.51.100.2 1 465\r\n",
            "PROXY \r\n",
            "proxy TCP4 192.0.2.1 198.51.100.2 1 465\r\n",
            "EHLO client.example\r\n",
        ] {
            assert_eq!(read(bad.as_bytes()), Err(Malformed), "{bad:?}");
        }
        let endless = [b"PROXY UNKNOWN ".as_slice(), &[b'x'; 200]].concat();
        assert_eq!(read(&endless), Err(Malformed));
    }

    #[test]
    fn version_2() {
        let header = [v2(1, 0x11, &V4), b"EHLO x\r\n".to_vec()].concat();
        assert_eq!(
            read(&header),
            Ok(complete("192.0.2.1:56324", "198.51.100.2:587", 28))
        );
        let mut block = [0; 36];
        block[..16].copy_from_slice(&"2001:db8::1".parse::<Ipv6Addr>().unwrap().octets());
        block[16..32].copy_from_slice(&"::ffff:198.51.100.2".parse::<Ipv6Addr>().unwrap().octets());
        block[32..].copy_from_slice(&[0, 1, 2, 0x4b]);
        let header = v2(1, 0x21, &block);
        assert_eq!(
            read(&header),
            Ok(complete("[2001:db8::1]:1", "198.51.100.2:587", 52))
        );
    }

    #[test]
    fn version_2_without_an_address() {
        let unix = [0; 216];
        for (command, family, rest) in [
            (0, 0x00, &[][..]),
            (0, 0x11, &V4[..]),
            (0, 0x77, &V4[..3]),
            (1, 0x00, &[][..]),
            (1, 0x00, b"whatever"),
            (1, 0x31, &unix[..]),
        ] {
            let header = v2(command, family, rest);
            assert_eq!(
                read(&header),
                Ok(Progress::Complete(Header::Own, header.len()))
            );
        }
    }

    #[test]
    fn version_2_that_is_none() {
        let too_long = [V2_SIGNATURE.as_slice(), &[0x21, 0x11, 0xff, 0xff]].concat();
        let version_3 = [V2_SIGNATURE.as_slice(), &[0x31, 0x11, 0, 0]].concat();
        for bad in [
            v2(2, 0x11, &V4),
            v2(1, 0x12, &V4),
            v2(1, 0x11, &V4[..11]),
            v2(1, 0x21, &[0; 35]),
            v2(1, 0x31, &[0; 215]),
            v2(1, 0x44, &V4),
            v2(1, 0x11, &[V4.as_slice(), &[0xee, 0]].concat()),
            v2(1, 0x11, &[V4.as_slice(), &[0xee, 0, 9, 1]].concat()),
            too_long,
            version_3,
            b"\r\n\r\n\0\r\nQUIX\n".to_vec(),
        ] {
            assert_eq!(read(&bad), Err(Malformed), "{bad:?}");
        }
    }

    #[test]
    fn tlvs_are_skipped_and_the_checksum_is_checked() {
        // RFC 3720 B.4: 32 bytes of zeros.
        assert_eq!(crc32c(&[0; 32], 64), 0x8a91_36aa);
        let mut header = v2(
            1,
            0x11,
            &[V4.as_slice(), &[0xea, 0, 1, 7, 3, 0, 4, 0, 0, 0, 0]].concat(),
        );
        let hole = header.len() - 4;
        let sum = crc32c(&header, hole);
        header[hole..].copy_from_slice(&sum.to_be_bytes());
        assert!(matches!(
            read(&header),
            Ok(Progress::Complete(Header::Announced { .. }, 39))
        ));
        header[20] ^= 1;
        assert_eq!(read(&header), Err(Malformed));
    }

    #[test]
    fn nothing_of_what_follows_is_asked_for() {
        let line = b"PROXY TCP4 192.0.2.1 198.51.100.2 56324 587\r\n".to_vec();
        for header in [line, v2(1, 0x11, &V4), b"PROXY UNKNOWN\r\n".to_vec()] {
            let mut taken = 0;
            while let Progress::NeedMore(bytes) = read(&header[..taken]).unwrap() {
                assert!(bytes > 0);
                taken += bytes;
                assert!(taken <= header.len(), "{header:?}");
            }
            assert_eq!(taken, header.len());
        }
    }
}
