package main

import (
	"os"
	"os/user"
	"strconv"

	urfave "github.com/urfave/cli/v2"

	"jumpsuite/deployer"
	"jumpsuite/internal/access"
)

// newDeployer is a deployer for the cluster that was asked for. It keeps the
// local copies of its journals with root's under sudo, and with the user's own
// state otherwise.
func newDeployer(c *urfave.Context, way *access.Access) (*deployer.Deployer, error) {
	d := deployer.New(way.Config, way.Cluster)
	d.Program = calledAs(c.App.Name)
	d.By, d.Folder = whose(way), deployer.Folder
	d.Host, _ = os.Hostname() // a journal without a host is one all the same
	if way.Caller != nil {
		return d, nil
	}
	var err error
	d.Folder, err = deployer.UserFolder(os.Getenv)
	return d, err
}

// whose is the name for the journal: the caller's, or that of a user with
// credentials of his own.
func whose(way *access.Access) string {
	if way.Caller != nil {
		return way.Caller.Name
	}
	if u, err := user.Current(); err == nil {
		return u.Username
	}
	return strconv.Itoa(os.Getuid())
}
