package ecs

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"strings"
)

const hexDigits = "0123456789abcdef"

// hexID is n random hexadecimal digits; the same seed gives the same ones.
func (p *Plane) hexID(n int) string {
	b := make([]byte, n)
	for i := 0; i < n; i += 16 {
		bits := p.rand.Uint64()
		for j := i; j < min(i+16, n); j++ {
			b[j] = hexDigits[bits&15]
			bits >>= 4
		}
	}
	return string(b)
}

// number is 19 random decimal digits, the first not zero.
func (p *Plane) number() string {
	return fmt.Sprintf("%d", 1_000_000_000_000_000_000+p.rand.Int64N(8_000_000_000_000_000_000))
}

func (p *Plane) uuid() string {
	h := p.hexID(32)
	return strings.Join([]string{h[:8], h[8:12], h[12:16], h[16:20], h[20:]}, "-")
}

const idLetters = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_-"

// rolloutID is the 21 letters of a service deployment's ARN.
func (p *Plane) rolloutID() string {
	b := make([]byte, 21)
	for i := range b {
		b[i] = idLetters[p.rand.IntN(len(idLetters))]
	}
	return string(b)
}

// arn makes an ECS ARN: arn("task", "cluster", "id").
func (p *Plane) arn(kind string, parts ...string) string {
	return "arn:aws:ecs:" + p.region + ":" + p.account + ":" + kind + "/" + strings.Join(parts, "/")
}

func (p *Plane) definitionARN(family string, revision int) string {
	return fmt.Sprintf("arn:aws:ecs:%s:%s:task-definition/%s:%d", p.region, p.account, family, revision)
}

// shortARN is the service ARN's old format, without the cluster.
func (s *service) shortARN() string {
	prefix, _, _ := strings.Cut(s.arn, ":service/")
	return prefix + ":service/" + s.name
}

// lastPart is what follows the last slash: the ID in an ARN, or the whole of an ID.
func lastPart(s string) string { return s[strings.LastIndexByte(s, '/')+1:] }

// isARN reports whether s looks like an ECS ARN of the given kind.
func isARN(s, kind string) bool {
	return strings.HasPrefix(s, "arn:aws:ecs:") && strings.Contains(s, ":"+kind+"/")
}

func ipv4(s string) uint32 {
	a := netip.MustParseAddr(s).As4()
	return binary.BigEndian.Uint32(a[:])
}

func ipv4String(n uint32) string {
	var a [4]byte
	binary.BigEndian.PutUint32(a[:], n)
	return netip.AddrFrom4(a).String()
}

func or(s, fallback string) string {
	if s == "" {
		return fallback
	}
	return s
}

func orInt(n, fallback int) int {
	if n == 0 {
		return fallback
	}
	return n
}
