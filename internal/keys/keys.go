// Package keys keeps the keys of one machine: its own, and those of the other
// machines that it trusts.
//
// A machine makes its own key at first use. Of the others it knows by two kinds
// of lists: what an administrator wrote (trusted, revoked), and what was fetched
// from SSM Parameter Store (jump-servers@PLACE, hosts@PLACE; package enrol), a
// list for each region and cluster that this machine has to do with. A line is a key
// and the name of who has it, an EC2 instance's id as a rule. A key that was
// revoked is not trusted, whoever else says so. A list that cannot be read or
// understood makes nobody trusted.
//
// To change its own key a machine has two for a while: the next one is published
// beside the one that is used, and takes its place when the others have heard of
// it; the former one is published for a while longer, for what was opened with it. So
// nobody is cut off. The former key signs that the next one takes its place, and so
// what was its callers' stays theirs.
package keys

import (
	"bytes"
	"crypto/ed25519"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"jumpsuite/internal/tunnel"
)

// Where keys are, unless a test says otherwise.
const (
	Folder      = "/var/lib/jumpsuite/keys" // own keys, fetched lists
	AdminFolder = "/etc/jumpsuite/keys"     // trusted, revoked
)

// The files. Each belongs to root and is written by nobody else; the private
// ones are read by nobody else.
const (
	ownFile  = "key.pem"
	nextFile = "next.pem"

	// formerFile has a line for each rotation: the former key, the one that took its
	// place, and the former one's signature of that.
	formerFile = "former"

	trustedFile = "trusted"
	revokedFile = "revoked"
)

// Role is which of the fetched lists holds the machines at the other end.
type Role string

// The lists.
const (
	JumpServers Role = "jump-servers"
	Hosts       Role = "hosts"
)

// Any in place of a name stands for each machine.
const Any = "*"

// Entry is a line of a list.
type Entry struct {
	Key  tunnel.KeyID
	Name string
}

// Store is the keys of this machine. The zero value is root's, in Folder and
// AdminFolder.
type Store struct {
	Dir   string // empty: Folder
	Admin string // empty: AdminFolder
	Owner int    // whose the files have to be
}

// FileError is a file that may not be trusted, or cannot be read.
type FileError struct {
	Path string
	Err  error
	Next string
}

func (e *FileError) Error() string { return fmt.Sprintf("key file %s: %v", e.Path, e.Err) }

// Unwrap is what the system said.
func (e *FileError) Unwrap() error { return e.Err }

// Hint is what to do about it.
func (e *FileError) Hint() string { return e.Next }

// ExitCode is 78: a configuration file is wrong.
func (e *FileError) ExitCode() int { return 78 }

func (s Store) own(name string) string   { return filepath.Join(or(s.Dir, Folder), name) }
func (s Store) admin(name string) string { return filepath.Join(or(s.Admin, AdminFolder), name) }

func or(s, otherwise string) string {
	if s == "" {
		return otherwise
	}
	return s
}

// maxSize of a file, in bytes: some ten thousand lines.
const maxSize = 1 << 20

// read returns a file that belongs to the owner and has none of the bits of
// forbidden.
func (s Store) read(path string, forbidden os.FileMode) ([]byte, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NOFOLLOW|syscall.O_NONBLOCK|syscall.O_CLOEXEC, 0)
	if err != nil {
		return nil, &FileError{Path: path, Err: errors.Unwrap(err)}
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, &FileError{Path: path, Err: err}
	}
	mode := info.Mode()
	switch uid := info.Sys().(*syscall.Stat_t).Uid; {
	case !mode.IsRegular():
		return nil, &FileError{Path: path, Err: errors.New("not a plain file")}
	case uid != uint32(s.Owner):
		return nil, &FileError{Path: path, Err: fmt.Errorf("belongs to uid %d, not to %d", uid, s.Owner), Next: fmt.Sprintf("look how it came there; then: chown %d %s", s.Owner, path)}
	case mode.Perm()&forbidden != 0:
		return nil, &FileError{Path: path, Err: fmt.Errorf("mode %04o lets others in", mode.Perm()), Next: fmt.Sprintf("look who could use it; then: chmod %04o %s", mode.Perm()&^forbidden, path)}
	}
	b, err := io.ReadAll(io.LimitReader(f, maxSize+1))
	if err == nil && len(b) > maxSize {
		err = fmt.Errorf("larger than %d bytes", maxSize)
	}
	if err != nil {
		return nil, &FileError{Path: path, Err: err}
	}
	return b, nil
}

// write puts a file in place as a whole, and durably. What would not be read again is
// not written.
func (s Store) write(path string, b []byte, mode os.FileMode) error {
	if len(b) > maxSize {
		return &FileError{Path: path, Err: fmt.Errorf("it would be larger than %d bytes, and stays as it is", maxSize)}
	}
	tmp, err := s.temporary(path, b, mode)
	if err != nil {
		return err
	}
	defer os.Remove(tmp)
	if err := os.Rename(tmp, path); err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	return syncFolder(filepath.Dir(path))
}

func (s Store) temporary(path string, b []byte, mode os.FileMode) (name string, err error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return "", fmt.Errorf("write %s: %w", path, err)
	}
	f, err := os.CreateTemp(filepath.Dir(path), ".new-*")
	if err != nil {
		return "", fmt.Errorf("write %s: %w", path, err)
	}
	_, err = f.Write(b)
	err = errors.Join(err, f.Chmod(mode), f.Sync(), f.Close())
	if err != nil {
		os.Remove(f.Name())
		return "", fmt.Errorf("write %s: %w", path, err)
	}
	return f.Name(), nil
}

// lockFile is in this machine's own folder, which nobody else can look into: a lock
// needs no more than to open a file, and whoever holds one holds up a revocation.
const lockFile = ".lock"

// lock keeps others from changing keys and lists until unlock is called.
func (s Store) lock() (unlock func(), err error) {
	path := s.own(lockFile)
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return nil, fmt.Errorf("lock %s: %w", path, err)
	}
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|syscall.O_NOFOLLOW, 0o600)
	if err != nil {
		return nil, fmt.Errorf("lock %s: %w", path, err)
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX); err != nil {
		f.Close()
		return nil, fmt.Errorf("lock %s: %w", path, err)
	}
	return func() { f.Close() }, nil
}

// folder makes sure that nobody but the owner can put files into a folder, or take
// them out: a list that is not there is empty. One that is not there itself is right.
func (s Store) folder(dir string) error {
	info, err := os.Stat(dir)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return &FileError{Path: dir, Err: errors.Unwrap(err)}
	}
	switch uid := info.Sys().(*syscall.Stat_t).Uid; {
	case !info.IsDir():
		return &FileError{Path: dir, Err: errors.New("not a folder")}
	case uid != uint32(s.Owner):
		return &FileError{Path: dir, Err: fmt.Errorf("belongs to uid %d, not to %d", uid, s.Owner), Next: fmt.Sprintf("look how it came there; then: chown %d %s", s.Owner, dir)}
	case info.Mode().Perm()&0o022 != 0:
		return &FileError{Path: dir, Err: fmt.Errorf("mode %04o lets others in", info.Mode().Perm()), Next: fmt.Sprintf("look what was put there, or taken away; then: chmod %04o %s", info.Mode().Perm()&^0o022, dir)}
	}
	return nil
}

func syncFolder(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer d.Close()
	return d.Sync()
}

// Own is this machine's key; where there is none, one is made. Those who ask at
// the same time get the same.
func (s Store) Own() (ed25519.PrivateKey, error) {
	key, err := s.private(ownFile)
	if !errors.Is(err, os.ErrNotExist) {
		return key, err
	}
	if err := s.create(ownFile); err != nil {
		return nil, err
	}
	return s.private(ownFile)
}

// create makes a key, unless there is one by now.
func (s Store) create(name string) error {
	_, key, err := ed25519.GenerateKey(nil)
	if err != nil {
		return fmt.Errorf("make a key: %w", err)
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return fmt.Errorf("make a key: %w", err)
	}
	tmp, err := s.temporary(s.own(name), pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}), 0o600)
	if err != nil {
		return err
	}
	defer os.Remove(tmp)
	if err := os.Link(tmp, s.own(name)); err != nil && !errors.Is(err, os.ErrExist) {
		return fmt.Errorf("make a key: %w", err)
	}
	return syncFolder(filepath.Dir(tmp))
}

func (s Store) private(name string) (ed25519.PrivateKey, error) {
	path := s.own(name)
	b, err := s.read(path, 0o077)
	if err != nil {
		return nil, err
	}
	block, rest := pem.Decode(b)
	if block == nil || block.Type != "PRIVATE KEY" || len(bytes.TrimSpace(rest)) > 0 {
		return nil, &FileError{Path: path, Err: errors.New("is no private key in PEM"), Next: "remove it, and a new one is made; the others have to hear of that first"}
	}
	parsed, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	key, ok := parsed.(ed25519.PrivateKey)
	if err != nil || !ok {
		return nil, &FileError{Path: path, Err: errors.New("is no private key of ed25519"), Next: "remove it, and a new one is made; the others have to hear of that first"}
	}
	return key, nil
}

// Public are the ids of this machine's keys: the one in use, and the next one if
// there is one.
func (s Store) Public() ([]tunnel.KeyID, error) {
	own, err := s.Own()
	if err != nil {
		return nil, err
	}
	ids := []tunnel.KeyID{ID(own)}
	next, err := s.private(nextFile)
	if errors.Is(err, os.ErrNotExist) {
		return ids, nil
	}
	if err != nil {
		return nil, err
	}
	return append(ids, ID(next)), nil
}

// Overlap is how long two of a machine's keys are known to the others at least: the
// next one before it is used, and the former one after that.
const Overlap = 24 * time.Hour

// Published are the ids that the others have to know: those of Public, and for the
// time of an overlap after a rotation the former one, with which streams are open. now
// stands for the clock.
func (s Store) Published(now time.Time) ([]tunnel.KeyID, error) {
	ids, err := s.Public()
	if err != nil || len(ids) > 1 {
		return ids, err
	}
	info, err := os.Stat(s.own(formerFile))
	if errors.Is(err, os.ErrNotExist) {
		return ids, nil
	}
	if err != nil {
		return nil, &FileError{Path: s.own(formerFile), Err: errors.Unwrap(err)}
	}
	if now.Sub(info.ModTime()).Abs() > Overlap { // a clock that is wrong prolongs nothing
		return ids, nil
	}
	former, err := s.Former()
	if err != nil || len(former) == 0 {
		return ids, err
	}
	return append(ids, former[0].Key), nil
}

// ID is what the others know a key by.
func ID(key ed25519.PrivateKey) tunnel.KeyID { return tunnel.IDOf(key.Public().(ed25519.PublicKey)) }

// NotYetError is a next key that the others may not have heard of yet.
type NotYetError struct{ From time.Time }

func (e *NotYetError) Error() string {
	return "the next key was made a short while ago: not all others may have heard of it"
}

// Hint is what to do about it.
func (e *NotYetError) Hint() string {
	return "run it again after " + e.From.Format(time.RFC3339) + ", or now with --now if they have"
}

// ExitCode is 73: something else has to end first.
func (e *NotYetError) ExitCode() int { return 73 }

// Rotate makes the next key; called again, overlap later at the earliest, it puts
// that into use, and done is true. now stands for the clock, which does not count where
// there is no overlap: it may have been ahead when the key was made.
func (s Store) Rotate(now time.Time, overlap time.Duration) (done bool, err error) {
	unlock, err := s.lock()
	if err != nil {
		return false, err
	}
	defer unlock()
	if _, err := s.Own(); err != nil {
		return false, err
	}
	if _, err := s.private(nextFile); errors.Is(err, os.ErrNotExist) {
		return false, s.create(nextFile)
	} else if err != nil {
		return false, err
	}
	info, err := os.Stat(s.own(nextFile))
	if err != nil {
		return false, err
	}
	if from := info.ModTime().Add(overlap); overlap > 0 && now.Before(from) {
		return false, &NotYetError{From: from}
	}
	if err := s.succeed(); err != nil {
		return false, err
	}
	if err := os.Rename(s.own(nextFile), s.own(ownFile)); err != nil {
		return false, fmt.Errorf("put the next key into use: %w", err)
	}
	return true, syncFolder(filepath.Dir(s.own(ownFile)))
}

// succeed lets the key in use sign that the next one takes its place.
func (s Store) succeed() error {
	own, err := s.private(ownFile)
	if err != nil {
		return err
	}
	next, err := s.private(nextFile)
	if err != nil {
		return err
	}
	lines, err := s.successions()
	if err != nil {
		return err
	}
	f := tunnel.Succeed(own, ID(next))
	lines = append(slices.DeleteFunc(lines, func(l line) bool { return l.next == ID(next) }), line{f, ID(next)})
	var b bytes.Buffer
	for _, l := range lines {
		fmt.Fprintf(&b, "%s %s %s\n", l.Key, l.next, l.Signature)
	}
	return s.write(s.own(formerFile), b.Bytes(), 0o644)
}

// line is one of the file of former keys.
type line struct {
	tunnel.Former
	next tunnel.KeyID
}

func (s Store) successions() (lines []line, err error) {
	path := s.own(formerFile)
	b, err := s.read(path, 0o022)
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	for text := range strings.Lines(string(b)) {
		f := strings.Fields(text)
		if len(f) != 3 {
			return nil, &FileError{Path: path, Err: errors.New("a line is no rotation"), Next: "remove it: what callers made before the rotations is not theirs any more then"}
		}
		lines = append(lines, line{tunnel.Former{Key: tunnel.KeyID(f[0]), Signature: f[2]}, tunnel.KeyID(f[1])})
	}
	return lines, nil
}

// mostFormer bounds how many former keys are told of.
const mostFormer = 32

// Former are the keys that this machine had before the one in use, newest first.
func (s Store) Former() (former []tunnel.Former, err error) {
	own, err := s.Own()
	if err != nil {
		return nil, err
	}
	lines, err := s.successions()
	if err != nil {
		return nil, err
	}
	for key := ID(own); len(former) < mostFormer; key = former[len(former)-1].Key {
		i := slices.IndexFunc(lines, func(l line) bool { return l.next == key })
		if i < 0 {
			return former, nil
		}
		former = append(former, lines[i].Former)
	}
	return former, nil
}

// Set is who is trusted.
type Set struct {
	entries []Entry
	revoked []Entry
}

// Load reads whom this machine trusts: those of the role, and those whom an
// administrator named. On an error nobody is trusted.
func (s Store) Load(role Role) (*Set, error) {
	set := &Set{}
	for _, dir := range []string{or(s.Dir, Folder), or(s.Admin, AdminFolder)} {
		if err := s.folder(dir); err != nil {
			return nil, err
		}
	}
	fetched, err := s.fetched(role)
	if err != nil {
		return nil, err
	}
	for _, path := range append(fetched, s.admin(trustedFile)) {
		entries, err := s.list(path)
		if err != nil {
			return nil, err
		}
		set.entries = append(set.entries, entries...)
	}
	set.revoked, err = s.list(s.admin(revokedFile))
	if err != nil {
		return nil, err
	}
	return set, nil
}

// fetched are the lists that there are of a role: one for each place.
func (s Store) fetched(role Role) (paths []string, err error) {
	dir := or(s.Dir, Folder)
	files, err := os.ReadDir(dir)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, &FileError{Path: dir, Err: errors.Unwrap(err)}
	}
	for _, f := range files {
		if strings.HasPrefix(f.Name(), string(role)+"@") {
			paths = append(paths, filepath.Join(dir, f.Name()))
		}
	}
	return paths, nil
}

// list reads a list; one that is not there is empty.
func (s Store) list(path string) ([]Entry, error) {
	b, err := s.read(path, 0o022)
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	entries, err := Parse(string(b))
	if err != nil {
		return nil, &FileError{Path: path, Err: err, Next: "nobody is trusted until it is right: a line is a key and a name"}
	}
	return entries, nil
}

// Parse reads the lines of a list: KEY NAME, and what follows # is not read.
func Parse(text string) (entries []Entry, err error) {
	number := 0
	for line := range strings.Lines(text) {
		number++
		line, _, _ = strings.Cut(line, "#")
		f := strings.Fields(line)
		if len(f) == 0 {
			continue
		}
		if len(f) != 2 {
			return nil, fmt.Errorf("line %d: write a key and a name", number)
		}
		id, err := tunnel.ParseKeyID(f[0])
		if err != nil {
			return nil, fmt.Errorf("line %d: %w", number, err)
		}
		if err := CheckName(f[1]); err != nil {
			return nil, fmt.Errorf("line %d: %w", number, err)
		}
		entries = append(entries, Entry{Key: id, Name: f[1]})
	}
	return entries, nil
}

// CheckName refuses what is no name of a machine.
func CheckName(s string) error {
	if s == Any {
		return nil
	}
	ok := func(c rune) bool {
		return c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || strings.ContainsRune(".-_", c)
	}
	if s == "" || len(s) > 255 || strings.IndexFunc(s, func(c rune) bool { return !ok(c) }) >= 0 {
		return fmt.Errorf("%q is no name: letters, digits, dots, - and _, or * for any machine", s)
	}
	return nil
}

// Trusts reports whether any machine with the key is trusted.
func (s *Set) Trusts(id tunnel.KeyID) bool { return s.TrustsAs(id, "") }

// TrustsAs reports whether the key is that of the named machine. An empty name
// is that of any.
func (s *Set) TrustsAs(id tunnel.KeyID, name string) bool {
	if s == nil || s.Revokes(id) {
		return false
	}
	return slices.ContainsFunc(s.entries, func(e Entry) bool {
		return e.Key == id && (name == "" || e.Name == name || e.Name == Any)
	})
}

// Revokes reports whether an administrator has revoked the key; where nobody is
// trusted, each counts as revoked.
func (s *Set) Revokes(id tunnel.KeyID) bool {
	return s == nil || slices.ContainsFunc(s.revoked, func(e Entry) bool { return e.Key == id })
}

// Entries are those who are trusted.
func (s *Set) Entries() (list []Entry) {
	for _, e := range s.entries {
		if s.TrustsAs(e.Key, e.Name) && !slices.Contains(list, e) {
			list = append(list, e)
		}
	}
	return list
}

// Revoked are those who are not trusted any more.
func (s *Set) Revoked() []Entry { return s.revoked }

// Fetched puts in place what was fetched of one place, a cluster. Those of other
// places stay as they are.
func (s Store) Fetched(role Role, place string, entries []Entry) error {
	path, err := s.fetchedFile(role, place)
	if err != nil {
		return err
	}
	return s.write(path, format(entries), 0o644)
}

// Forget takes away what was fetched of one place: who is known from there alone
// is not trusted any more.
func (s Store) Forget(role Role, place string) error {
	path, err := s.fetchedFile(role, place)
	if err != nil {
		return err
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("forget the keys of %s: %w", place, err)
	}
	return nil
}

func (s Store) fetchedFile(role Role, place string) (string, error) {
	if err := CheckName(place); err != nil || place == Any {
		return "", fmt.Errorf("%q is no name of a place that keys are fetched from", place)
	}
	return s.own(string(role) + "@" + place), nil
}

func format(entries []Entry) []byte {
	var b bytes.Buffer
	for _, e := range entries {
		fmt.Fprintf(&b, "%s %s\n", e.Key, e.Name)
	}
	return b.Bytes()
}

// Trust adds a line to the administrator's list.
func (s Store) Trust(e Entry) error {
	if err := CheckName(e.Name); err != nil {
		return err
	}
	revoked, err := s.list(s.admin(revokedFile))
	if err != nil {
		return err
	}
	if slices.ContainsFunc(revoked, func(r Entry) bool { return r.Key == e.Key }) {
		return &FileError{Path: s.admin(revokedFile), Err: fmt.Errorf("%s is revoked", e.Key), Next: "if that was a mistake, take the line out first"}
	}
	return s.add(trustedFile, e)
}

// ErrOwn is a revocation of this machine's own key.
var ErrOwn = errors.New("this is this machine's own key: 'r3-admin keys rotate' replaces it")

// Revoke makes a key trusted by nobody here, for good.
func (s Store) Revoke(e Entry) error {
	own, err := s.Public()
	if err != nil {
		return err
	}
	if slices.Contains(own, e.Key) {
		return ErrOwn
	}
	return s.add(revokedFile, e)
}

func (s Store) add(name string, e Entry) error {
	path := s.admin(name)
	unlock, err := s.lock()
	if err != nil {
		return err
	}
	defer unlock()
	entries, err := s.list(path)
	if err != nil || slices.Contains(entries, e) {
		return err
	}
	text, err := s.read(path, 0o022)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	if len(text) > 0 && text[len(text)-1] != '\n' {
		text = append(text, '\n')
	}
	return s.write(path, append(text, format([]Entry{e})...), 0o644)
}
