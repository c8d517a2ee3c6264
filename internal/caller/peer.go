package caller

import (
	"context"
	"fmt"
	"strconv"
)

// OfUID resolves the user with a uid that the kernel vouches for, as that of a
// socket's peer. What cannot be resolved is an error.
func OfUID(ctx context.Context, uid int) (*Caller, error) {
	return system.ofUID(ctx, uid)
}

// NamesOf asks the user database anew who has a uid, and which groups he is in.
func NamesOf(ctx context.Context, uid int) (user string, groups []string, err error) {
	c, err := OfUID(ctx, uid)
	if err != nil {
		return "", nil, err
	}
	return c.Name, c.Groups, nil
}

func (d database) ofUID(ctx context.Context, uid int) (*Caller, error) {
	ctx, cancel := context.WithTimeout(ctx, lookupTimeout)
	defer cancel()
	users, err := d.users(ctx, strconv.Itoa(uid))
	if err != nil {
		return nil, fmt.Errorf("resolve uid %d: %w", uid, err)
	}
	e := users[0]
	if e.uid != uid {
		return nil, fmt.Errorf("resolve uid %d: the user database answers with uid %d", uid, e.uid)
	}
	return d.verify(ctx, claim{uid: uid, gid: e.gid, name: e.name})
}
