// Package packaging is tested by installing what packaging/build made: into a
// Debian as debootstrap leaves it, by apt, and used there by a person who is in
// the group jumpsuite, and by one who is not.
//
// It runs in a mount namespace of its own, so whatever it mounts ends with it.
// make test-packages builds the packages and runs it. What needs none of that, as
// the IAM policies, is tested always.
package packaging
