package dockerproxy

import (
	"net/http"
	"strings"

	"jumpsuite/policy"
)

// Headers of our own, from the CLI to the gate. They can only narrow.
const (
	hostHeader = "x-jumpsuite-host" // the host that was meant, by -H
	verbHeader = "x-jumpsuite-verb" // run or create: which word was typed

	environmentHeader = "x-jumpsuite-environment" // the environment that was meant, by --environment
)

// Bounds of bodies, in bytes.
const (
	createBody = 1 << 20
	execBody   = 64 << 10
	startBody  = 4 << 10
)

// operation is one entry of the Engine API that the gate knows.
type operation struct {
	name    string // as the audit log and messages have it
	method  string
	pattern string // {ref}: a container or exec; {name}: an image, slashes and all
	action  policy.Action
	query   params
	body    int64 // largest body, in bytes; zero: it has none
	upgrade bool  // it may turn into a raw stream
	serve   func(*exchange) error
}

var yesNo = param(boolean)

var containerFilters = filters("ancestor", "before", "exited", "expose", "health", "id", "is-task", "label",
	"name", "network", "publish", "since", "status", "volume")

// What is asked for in the same words by callers and, on terms, by gates.
var (
	startQuery  = params{"checkpoint": mustBeEmpty("--checkpoint"), "checkpoint-dir": mustBeEmpty("--checkpoint-dir"), "detachKeys": detachKeys}
	killQuery   = params{"signal": signal}
	stopQuery   = params{"t": number(-1, 60), "signal": signal}
	removeQuery = params{"force": yesNo, "v": yesNo, "link": off("link")}
)

// operations are all that there are: what is not in this table is refused.
var operations = []operation{
	{name: "ping", method: http.MethodHead, pattern: "_ping", serve: servePing},
	{name: "ping", method: http.MethodGet, pattern: "_ping", serve: servePing},
	{name: "version", method: http.MethodGet, pattern: "version", action: policy.DockerVersion, serve: serveVersion},
	{name: "info", method: http.MethodGet, pattern: "info", action: policy.DockerVersion, serve: serveInfo},
	{name: "events", method: http.MethodGet, pattern: "events", action: policy.DockerStats, serve: serveEvents,
		query: params{"since": timestamp, "until": timestamp, "filters": dropped}},

	{name: "ps", method: http.MethodGet, pattern: "containers/json", action: policy.DockerPs, serve: servePs,
		query: params{"all": yesNo, "size": yesNo, "limit": number(-1, 1<<31), "trunc_cmd": dropped, "filters": containerFilters}},
	{name: "inspect", method: http.MethodGet, pattern: "containers/{ref}/json", action: policy.DockerInspect, serve: serveInspect,
		query: params{"size": yesNo}},
	{name: "logs", method: http.MethodGet, pattern: "containers/{ref}/logs", action: policy.DockerLogs, serve: serveLogs,
		query: params{"stdout": yesNo, "stderr": yesNo, "follow": yesNo, "timestamps": yesNo, "details": dropped,
			"since": timestamp, "until": timestamp, "tail": lines}},
	{name: "stats", method: http.MethodGet, pattern: "containers/{ref}/stats", action: policy.DockerStats, serve: serveStats,
		query: params{"stream": yesNo, "one-shot": yesNo}},
	{name: "images", method: http.MethodGet, pattern: "images/json", action: policy.DockerImages, serve: serveImages,
		query: params{"all": yesNo, "digests": yesNo, "shared-size": yesNo, "manifests": yesNo, "only_ids": off("only_ids"),
			"filters": filters("before", "dangling", "label", "reference", "since", "until")}},
	{name: "inspect image", method: http.MethodGet, pattern: "images/{name}/json", action: policy.DockerInspect, serve: serveInspectImage,
		query: params{"manifests": yesNo, "platform": mustBeEmpty("platform")}},

	{name: "exec", method: http.MethodPost, pattern: "containers/{ref}/exec", action: policy.DockerExec, body: execBody, serve: serveExecCreate},
	{name: "exec start", method: http.MethodPost, pattern: "exec/{ref}/start", action: policy.DockerExec, body: startBody, upgrade: true, serve: serveExecStart},
	{name: "exec resize", method: http.MethodPost, pattern: "exec/{ref}/resize", action: policy.DockerExec, serve: serveExecResize,
		query: params{"h": clamped, "w": clamped}},
	{name: "exec inspect", method: http.MethodGet, pattern: "exec/{ref}/json", action: policy.DockerExec, serve: serveExecInspect},

	{name: "pull", method: http.MethodPost, pattern: "images/create", action: policy.DockerPull, serve: servePull,
		query: params{"fromImage": imageName, "tag": imageName, "platform": mustBeEmpty("--platform")}},
	{name: "create", method: http.MethodPost, pattern: "containers/create", action: policy.DockerRun, body: createBody, serve: serveCreate,
		query: params{"name": containerName, "platform": mustBeEmpty("--platform")}},
	{name: "start", method: http.MethodPost, pattern: "containers/{ref}/start", action: policy.DockerStart, serve: serveStart,
		query: startQuery},
	{name: "attach", method: http.MethodPost, pattern: "containers/{ref}/attach", action: policy.DockerStart, upgrade: true, serve: serveAttach,
		query: params{"stream": yesNo, "stdin": yesNo, "stdout": yesNo, "stderr": yesNo, "logs": off("logs"), "detachKeys": detachKeys}},
	{name: "wait", method: http.MethodPost, pattern: "containers/{ref}/wait", action: policy.DockerStart, serve: serveWait,
		query: params{"condition": oneOf("not-running", "next-exit", "removed")}},
	{name: "resize", method: http.MethodPost, pattern: "containers/{ref}/resize", action: policy.DockerStart, serve: serveResize,
		query: params{"h": clamped, "w": clamped}},
	{name: "kill", method: http.MethodPost, pattern: "containers/{ref}/kill", action: policy.DockerStart, serve: serveKill,
		query: killQuery},
	{name: "stop", method: http.MethodPost, pattern: "containers/{ref}/stop", action: policy.DockerStop, serve: serveStop,
		query: stopQuery},
	{name: "rm", method: http.MethodDelete, pattern: "containers/{ref}", action: policy.DockerRm, serve: serveRemove,
		query: removeQuery},

	// What gates ask each other, and the CLI its gate.
	{name: "outlook", method: http.MethodGet, pattern: "jumpsuite/containers/{ref}", serve: serveOutlook},
	{name: "image outlook", method: http.MethodGet, pattern: "jumpsuite/images/{name}/json", serve: serveImageOutlook},
	{name: "exec", method: http.MethodPost, pattern: "jumpsuite/containers/{ref}/exec", action: policy.DockerExec, body: execBody, serve: onTerms(serveExecCreate)},
	{name: "start", method: http.MethodPost, pattern: "jumpsuite/containers/{ref}/start", action: policy.DockerStart, serve: onTerms(serveStart),
		query: startQuery},
	{name: "kill", method: http.MethodPost, pattern: "jumpsuite/containers/{ref}/kill", action: policy.DockerStart, serve: onTerms(serveKill),
		query: killQuery},
	{name: "stop", method: http.MethodPost, pattern: "jumpsuite/containers/{ref}/stop", action: policy.DockerStop, serve: onTerms(serveStop),
		query: stopQuery},
	{name: "rm", method: http.MethodDelete, pattern: "jumpsuite/containers/{ref}", action: policy.DockerRm, serve: onTerms(serveRemove),
		query: removeQuery},
	{name: "hosts", method: http.MethodGet, pattern: "jumpsuite/hosts", serve: serveHosts, query: params{"for": oneOf("ps", "images", "stats")}},

	// docker inspect asks for these when there is no such container or image.
	{name: "inspect network", method: http.MethodGet, pattern: "networks/{ref}", action: policy.DockerInspect, serve: serveNone("network"),
		query: params{"scope": dropped, "verbose": dropped}},
	{name: "inspect volume", method: http.MethodGet, pattern: "volumes/{ref}", action: policy.DockerInspect, serve: serveNone("volume")},
	{name: "inspect plugin", method: http.MethodGet, pattern: "plugins/{name}/json", action: policy.DockerInspect, serve: serveNone("plugin")},
}

// families are the first parts of the Engine's paths: below them, a path that
// is no operation is one that is not available; elsewhere it is no path at all.
var families = map[string]bool{
	"_ping": true, "auth": true, "build": true, "commit": true, "configs": true, "containers": true, "debug": true,
	"distribution": true, "events": true, "exec": true, "grpc": true, "images": true, "info": true, "networks": true,
	"nodes": true, "plugins": true, "secrets": true, "services": true, "session": true, "swarm": true, "system": true,
	"tasks": true, "version": true, "volumes": true,
}

// route finds the operation for a method and a decoded path, and what stands in
// its {ref} or {name}.
func route(method string, path []string) (op *operation, ref string, err error) {
	for i := range operations {
		o := &operations[i]
		if o.method != method {
			continue
		}
		if ref, ok := fits(o.pattern, path); ok {
			return o, ref, nil
		}
	}
	return nil, "", noRoute(method, path)
}

func noRoute(method string, path []string) error {
	full := "/" + strings.Join(path, "/")
	switch {
	case method == http.MethodGet && len(path) > 3 && path[0] == "containers" && path[len(path)-1] == "json":
		return noSuchContainer(strings.Join(path[1:len(path)-1], "/"))
	case !families[path[0]] && method != http.MethodOptions:
		return noPage(full)
	}
	return forbidden("what is: ps images logs exec stats inspect run pull start create version",
		"%s %s is not available through the gate", printable(method), printable(full))
}

// fits matches a path against a pattern. The fixed parts of a pattern come
// before its ref: containers/json is the list, and no container named json.
func fits(pattern string, path []string) (ref string, ok bool) {
	for {
		part, rest, more := strings.Cut(pattern, "/")
		switch {
		case len(path) == 0:
			return "", false
		case part == "{name}":
			return fitsName(rest, more, path)
		case part == "{ref}":
			ref = path[0]
		case part != path[0]:
			return "", false
		}
		path = path[1:]
		if !more {
			return ref, len(path) == 0
		}
		pattern = rest
	}
}

// fitsName matches {name}/last: as many parts as there are, but for the last.
func fitsName(last string, more bool, path []string) (string, bool) {
	n := len(path) - 1
	if !more || n < 1 || path[n] != last {
		return "", false
	}
	return strings.Join(path[:n], "/"), true
}
