// Package tunnel carries many authenticated byte streams over one connection
// that is slow, may deliver a piece twice, and is not ours: an SSM session.
//
// From the outside in:
//
//   - The banner. The host's gate speaks first, one line: "jumpsuite tunnel 1".
//     Whoever dials writes nothing before it has come, since the SSM agent says
//     that a session is open before it has dialled the port.
//   - A record is a piece with a number and a checksum. A record that comes twice is
//     dropped, and anything else that is not the next one ends the carrier.
//   - A carrier is the connection with its records, and the streams in it (yamux, one
//     frame to a record). Carry and Serve are its two ends. It knows no keys.
//   - A stream is one of them. It ends when both sides have closed it; closing is
//     for both directions (half-close belongs to what is inside).
//   - In a stream there is TLS 1.3, both sides pinned by their keys: no names, no
//     authorities, no tickets. Client and Accept are its two ends.
//   - In TLS, a Hello from the jump server, the host's Welcome or refusal, and
//     frames of data, compressed where that pays. CloseWrite is TLS's close_notify:
//     who has read it has read everything, and a stream that ends without is cut.
//
// So what carries (r3-ssm) reads nothing and decides nothing, and an end knows
// that nothing is missing.
//
// The outer side of a carrier is parsed before anybody is authenticated: it is
// kept small, and its limits are constants of this package.
package tunnel
