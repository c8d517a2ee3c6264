// Package dockerproxy is the gate: the Docker Engine API behind a policy.
//
// A connection belongs to one caller. Each request on it goes the same way:
//
//	read    the head and the body, strictly: what is odd is refused
//	route   method, decoded path and version name one of a few operations
//	resolve names become full ids, an exec's id its container and its creator
//	decide  the policy is asked, anew for every request
//	record  the decision is written down; what cannot be recorded is not done
//	forward a request that the gate builds from what it understood
//	stream  bytes are copied blindly only after the Engine has answered 101
//
// No byte of a caller reaches the Engine unparsed, but the payload of a stream.
//
// The words: a caller is who is at the other end of a connection. An operation
// is one entry of the Engine API that the gate knows. A lease says that a
// container was made or started through the gate, by whom and until when; it is
// kept on the host's disk, never in what a caller or an image could write. A
// refusal is an answer of the gate's own.
//
// Allow lists only: a field of a body, a key of a query, a header that is not
// listed is refused or dropped, and a test compares the list with the Engine's
// own types.
package dockerproxy
