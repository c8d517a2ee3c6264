package dockerproxy

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"jumpsuite/internal/audit"
)

// attack is one row of the catalogue: what is sent, and what the gate answers.
type attack struct {
	name string
	raw  string // bytes as they go over the socket
	user string // dev if empty
	want int    // status of the gate's answer
	says string // part of the answer
	// direct is what Debian's 20.10 answers to the same bytes: that it is not a
	// refusal shows that the attack is one. Zero: nothing is shown there, because
	// the row is about the gate's own rules or the Engine refuses it as well.
	direct int
	// shows is a part of what the Engine answers that shows it as well: whom it turned
	// to, although nobody was there.
	shows string
}

func create(config string) string { return post("/v1.41/containers/create", config) }

// with is a create with a HostConfig.
func with(hostConfig string) string {
	return create(`{"Image":"lab/web:1","Cmd":["true"],"HostConfig":{` + hostConfig + `}}`)
}

func execWith(fields string) string {
	return post("/v1.41/containers/web/exec", `{"AttachStdout":true,"Cmd":["id"],`+fields+`}`)
}

func chunked(path, body string) string {
	return "POST " + path + " HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n" +
		fmt.Sprintf("%x\r\n%s\r\n0\r\n\r\n", len(body), body)
}

func chunks(raw string) string {
	return "POST /v1.41/containers/create HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n" + raw
}

func manyKeys(n int) string {
	var b strings.Builder
	for i := range n {
		fmt.Fprintf(&b, `,"k%d":""`, i)
	}
	return b.String()
}

const form = "Content-Type: application/x-www-form-urlencoded"

// attacks are the catalogue: all must be refused, and nothing must happen.
var attacks = []attack{
	// HTTP
	{name: "double encoding", raw: get("/containers/%252e%252e/json"), want: 404},
	{name: "dot segments", raw: post("/v1.41/containers/x/../create", plainCreate), want: 400},
	{name: "encoded dot segments", raw: post("/v1.41/containers/x/%2e%2e/create", plainCreate), want: 400},
	{name: "encoded slash", raw: get("/containers/web%2fjson"), want: 400, says: "escaped slash", direct: 200},
	{name: "encoded NUL", raw: get("/containers/web%00/json"), want: 400},
	{name: "double slash", raw: post("//containers/create", plainCreate), want: 400},
	{name: "slash at the end", raw: post("/containers/create/", plainCreate), want: 404},
	{name: "upper case", raw: get("/Containers/JSON"), want: 404},
	{name: "old version", raw: get("/v1.12/containers/json"), want: 400, says: "not spoken", direct: 200},
	{name: "start of an old version with a body", raw: post("/v1.23/containers/stopped/start", `{"Binds":["/:/h"]}`), want: 400, direct: 204},
	{name: "odd version", raw: get("/v01.041/containers/json"), want: 400, direct: 200},
	{name: "long version", raw: get("/v1.41.0/containers/json"), want: 400, direct: 200},
	{name: "empty version", raw: get("/v./containers/json"), want: 400},
	{name: "new version", raw: get("/v1.99/containers/json"), want: 400},
	{name: "absolute URI", raw: "GET http://evil/containers/json HTTP/1.1\r\nHost: x\r\n\r\n", want: 400, direct: 200},
	{name: "OPTIONS", raw: "OPTIONS /containers/json HTTP/1.1\r\nHost: x\r\n\r\n", want: 403, direct: 200},
	{name: "CONNECT", raw: "CONNECT docker:80 HTTP/1.1\r\nHost: x\r\n\r\n", want: 400},
	{name: "method in lower case", raw: "get /containers/json HTTP/1.1\r\nHost: x\r\n\r\n", want: 403},
	{name: "method override", raw: "POST /containers/web/json HTTP/1.1\r\nHost: x\r\nX-HTTP-Method-Override: GET\r\nContent-Length: 0\r\n\r\n", want: 403},
	{name: "HEAD for GET", raw: "HEAD /v1.41/containers/web/archive?path=/etc/passwd HTTP/1.1\r\nHost: x\r\n\r\n", want: 403, direct: 200},
	{name: "the same key twice", raw: post("/v1.41/images/create?fromImage=localhost:1/evil&fromImage=lab/web&tag=1", ""), want: 400, says: "twice", shows: "localhost:1"},
	{name: "a key in another case", raw: post("/v1.41/images/create?FromImage=evil/x", ""), want: 400, says: "not available"},
	{name: "an unknown key", raw: get("/v1.41/containers/json?foo=1"), want: 400, direct: 200},
	{name: "a semicolon", raw: get("/v1.41/containers/json?all=1;limit=2"), want: 400},
	{name: "a form that overrides the query", raw: post("/v1.41/images/create?fromImage=lab/web&tag=1", "fromImage=localhost:1/evil&tag=2", form), want: 400, says: "no body", shows: "localhost:1"},
	{name: "a form that imports", raw: post("/v1.41/images/create?fromImage=lab/web&tag=1", "fromImage=&fromSrc=http://127.0.0.1:1/x.tar", form), want: 400, shows: "127.0.0.1:1/x.tar"},
	{name: "a form that kills", raw: post("/v1.41/containers/web/kill?signal=WINCH", "signal=KILL", form), want: 400, direct: 204},
	{name: "a multipart form", raw: post("/v1.41/images/create?fromImage=lab/web&tag=1", "--b\r\nContent-Disposition: form-data; name=\"fromImage\"\r\n\r\nevil\r\n--b--\r\n", "Content-Type: multipart/form-data; boundary=b"), want: 400},
	{name: "a large body", raw: create(`{"Image":"lab/web:1","Cmd":["` + strings.Repeat("x", 2<<20) + `"]}`), want: 413, direct: 201},
	{name: "a large body in chunks", raw: chunked("/v1.41/containers/create", `{"Image":"lab/web:1","Cmd":["`+strings.Repeat("x", 2<<20)+`"]}`), want: 413, direct: 201},
	{name: "a chunked body that is not allowed", raw: chunked("/v1.41/containers/create", `{"Image":"lab/web:1","HostConfig":{"Privileged":true}}`), want: 403, direct: 201},
	{name: "two lengths", raw: "POST /containers/create HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\nContent-Length: 2\r\n\r\n{}", want: 400},
	{name: "a length and chunks", raw: "POST /containers/create HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", want: 400},
	{name: "an odd transfer encoding", raw: "POST /containers/create HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: xchunked\r\n\r\n", want: 501},
	{name: "a negative length", raw: "POST /containers/create HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n", want: 400},
	{name: "a length with a sign", raw: "POST /containers/create HTTP/1.1\r\nHost: x\r\nContent-Length: +2\r\n\r\n{}", want: 400},
	{name: "a trailer", raw: "POST /v1.41/containers/create HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\nX: y\r\n\r\n", want: 400},
	{name: "a bare line feed", raw: "GET /containers/json HTTP/1.1\nHost: x\n\n", want: 400, direct: 200},
	{name: "a folded header", raw: "GET /containers/json HTTP/1.1\r\nHost: x\r\nX: a\r\n b\r\n\r\n", want: 400, direct: 200},
	{name: "a space before the colon", raw: "GET /containers/json HTTP/1.1\r\nHost : x\r\n\r\n", want: 400},
	{name: "no host", raw: "GET /containers/json HTTP/1.1\r\n\r\n", want: 400},
	{name: "two hosts", raw: "GET /containers/json HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", want: 400},
	{name: "HTTP/1.0", raw: "GET /containers/json HTTP/1.0\r\nHost: x\r\n\r\n", want: 505, direct: 200},
	{name: "HTTP/2 without asking", raw: "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", want: 505},
	{name: "too long a line", raw: "GET /" + strings.Repeat("a", 9<<10) + " HTTP/1.1\r\nHost: x\r\n\r\n", want: 431},
	{name: "too many headers", raw: "GET /_ping HTTP/1.1\r\nHost: x\r\n" + strings.Repeat("X: y\r\n", 100) + "\r\n", want: 400, direct: 200},
	{name: "gzip", raw: post("/v1.41/containers/create", plainCreate, "Content-Encoding: gzip", "Content-Type: application/json"), want: 400, direct: 201},
	{name: "no JSON type", raw: post("/v1.41/containers/create", plainCreate, "Content-Type: text/plain"), want: 400},
	{name: "upgrade on create", raw: post("/v1.41/containers/create", plainCreate, "Content-Type: application/json", upgradeTCP), want: 403, direct: 201},
	{name: "upgrade on rename", raw: post("/v1.41/containers/web/rename?name=web2", "", upgradeTCP), want: 403, direct: 204},
	{name: "upgrade to something else", raw: post("/v1.41/containers/stopped/attach?stream=1", "", "Connection: Upgrade\r\nUpgrade: h2c"), want: 400, direct: 101},
	{name: "gRPC", raw: post("/grpc", "", "Connection: Upgrade\r\nUpgrade: h2c"), want: 403, direct: 101},
	{name: "a BuildKit session", raw: post("/session", "", "Connection: Upgrade\r\nUpgrade: h2c"), want: 403, direct: 101},
	{name: "a websocket", raw: "GET /v1.41/containers/web/attach/ws?stream=1&stdin=1 HTTP/1.1\r\nHost: x\r\nOrigin: http://x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n", want: 403, direct: 101},
	{name: "a spoofed identity", user: "nobody", raw: "GET /v1.41/containers/json HTTP/1.1\r\nHost: x\r\nAuthz-User: root\r\nX-Forwarded-For: 127.0.0.1\r\n\r\n", want: 403, direct: 200},

	// JSON
	{name: "a key in lower case", raw: create(`{"Image":"lab/web:1","hostconfig":{"Privileged":true}}`), want: 400, says: "not known", direct: 201},
	{name: "a key in upper case", raw: create(`{"Image":"lab/web:1","HostConfig":{"PRIVILEGED":true}}`), want: 400, direct: 201},
	{name: "a folded key", raw: create("{\"Image\":\"lab/web:1\",\"Ho\u017ftConfig\":{\"Privileged\":true}}"), want: 400, direct: 201},
	{name: "an escaped key", raw: create(`{"Image":"lab/web:1","HostConfig":{"\u0050rivileged":true}}`), want: 403, says: "privileged", direct: 201},
	{name: "a key twice", raw: create(`{"Image":"lab/web:1","HostConfig":{"Privileged":false,"Privileged":true}}`), want: 400, says: "twice", direct: 201},
	{name: "an object in two parts", raw: create(`{"Image":"lab/web:1","HostConfig":{"Privileged":true},"HostConfig":{"Memory":8388608}}`), want: 400, direct: 201},
	{name: "a HostConfig at the top", raw: create(`{"Image":"lab/web:1","Privileged":true,"Binds":["/etc:/h"],"PidMode":"host"}`), want: 400, direct: 201},
	{name: "legacy keys at the top", raw: create(`{"Image":"lab/web:1","Memory":9999999999,"Cpuset":"0"}`), want: 400, direct: 201},
	{name: "a second value", raw: create(`{"Image":"lab/web:1"}{"HostConfig":{"Privileged":true}}`), want: 400, direct: 201},
	{name: "rubbish at the end", raw: create(`{"Image":"lab/web:1"}]`), want: 400, direct: 201},
	{name: "a byte order mark", raw: create("\ufeff" + `{"Image":"lab/web:1"}`), want: 400},
	{name: "no UTF-8", raw: create("{\"Image\":\"lab/web:1\",\"Hostname\":\"\xff\"}"), want: 400, direct: 201},
	{name: "half a character", raw: create(`{"Image":"lab/web:1","Hostname":"\ud800"}`), want: 400, direct: 201},
	{name: "a string for a boolean", raw: with(`"Privileged":"true"`), want: 400},
	{name: "a float for a number", raw: with(`"Memory":1e30`), want: 400},
	{name: "nested deep", raw: create(strings.Repeat(`{"HostConfig":`, 10000) + "1" + strings.Repeat("}", 10000)), want: 400},
	{name: "memory below zero", raw: with(`"Memory":-1`), want: 403, says: "memory"},
	{name: "processes without end", raw: with(`"PidsLimit":-5`), want: 403, says: "processes", direct: 201},
	{name: "CPUs without end", raw: with(`"NanoCpus":9223372036854775807`), want: 403},
	{name: "a body on start", raw: post("/v1.41/containers/stopped/start", `{"Privileged":true}`), want: 400},
	{name: "a body on GET", raw: "GET /v1.41/containers/json HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\n{}", want: 400, direct: 200},

	// reading
	{name: "commit", raw: post("/v1.41/commit?container=web&repo=lab/stolen", `{}`), want: 403, direct: 201},
	{name: "top with arguments for ps", raw: get("/v1.41/containers/web/top?ps_args=-eo+pid,args"), want: 403, direct: 200},
	{name: "changes", raw: get("/v1.41/containers/web/changes"), want: 403, direct: 200},
	{name: "export", raw: get("/v1.41/containers/web/export"), want: 403, direct: 200},
	{name: "a file out of a container", raw: get("/v1.41/containers/web/archive?path=/etc/passwd"), want: 403, direct: 200},
	{name: "a file into a container", raw: "PUT /v1.41/containers/web/archive?path=/tmp HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n", want: 403, direct: 200},
	{name: "disk usage", raw: get("/v1.41/system/df"), want: 403, direct: 200},
	{name: "profiles", raw: get("/debug/pprof/cmdline"), want: 403, direct: 200},
	{name: "filters twice", raw: get("/v1.41/containers/json?filters=%7B%7D&filters=%7B%7D"), want: 400, direct: 200},
	{name: "a filter that is off", raw: get("/v1.41/containers/json?filters=%7B%22label%22%3A%7B%22a%22%3Afalse%7D%7D"), want: 400, direct: 200},
	{name: "search", raw: get("/v1.41/images/search?term=127.0.0.1:1/x"), want: 403, shows: "127.0.0.1:1"},
	{name: "distribution", raw: get("/v1.41/distribution/127.0.0.1:1/x/json"), want: 403, shows: "127.0.0.1:1"},
	{name: "auth to somewhere", raw: post("/v1.41/auth", `{"serveraddress":"http://127.0.0.1:1"}`), want: 403, shows: "127.0.0.1:1"},
	{name: "a link's name", raw: get("/v1.41/containers/web/db/logs?stdout=1"), want: 403},
	{name: "logs by attaching", raw: post("/v1.41/containers/stopped/attach?logs=1&stdout=1", "", upgradeTCP), want: 400, says: "logs", direct: 101},
	{name: "an unknown container", raw: get("/v1.41/containers/nosuch/logs?stdout=1"), want: 404, says: "No such container: nosuch"},

	// exec
	{name: "a privileged exec", raw: execWith(`"Privileged":true`), want: 403, says: "privileged", direct: 201},
	{name: "exec as root", raw: execWith(`"User":"0"`), want: 403, says: "limits.exec.users", direct: 201},
	{name: "exec as root in other words", raw: execWith(`"User":"00:0"`), want: 403, direct: 201},
	{name: "exec with a variable", raw: execWith(`"Env":["LD_PRELOAD=/tmp/x"]`), want: 403, says: "LD_PRELOAD", direct: 201},
	{name: "exec in a leaked directory", raw: execWith(`"WorkingDir":"/proc/self/fd/7"`), want: 403, direct: 201},
	{name: "exec with odd detach keys", raw: execWith(`"DetachKeys":"a,;b"`), want: 403},
	{name: "exec in a privileged container", raw: post("/v1.41/containers/priv/exec", `{"AttachStdout":true,"Cmd":["id"]}`), want: 403, says: "it is privileged"},
	{name: "exec among the host's processes", raw: post("/v1.41/containers/seer/exec", `{"AttachStdout":true,"Cmd":["ps"]}`), want: 403, says: "process namespace", direct: 201},
	{name: "start of an unknown exec", raw: post("/v1.41/exec/"+strings.Repeat("9", 64)+"/start", `{"Detach":true}`), want: 404},

	// create
	{name: "privileged", raw: with(`"Privileged":true`), want: 403, direct: 201},
	{name: "a bind", raw: with(`"Binds":["/:/h"]`), want: 403, says: "limits.run.binds", direct: 201},
	{name: "a bind as a mount", raw: with(`"Mounts":[{"Type":"bind","Source":"/","Target":"/h"}]`), want: 403, direct: 201},
	{name: "the Engine's socket", raw: with(`"Binds":["/var/run/docker.sock:/s"]`), want: 403, direct: 201},
	{name: "a driver's options", raw: with(`"Mounts":[{"Type":"volume","Target":"/h","VolumeOptions":{"DriverConfig":{"Name":"local","Options":{"type":"none","o":"bind","device":"/root"}}}}]`), want: 403, direct: 201},
	{name: "a driver's options without its name", raw: with(`"Mounts":[{"Type":"volume","Target":"/h","VolumeOptions":{"DriverConfig":{"Options":{"type":"overlay","o":"lowerdir=/etc:/tmp","device":"x"}}}}]`), want: 403, direct: 201},
	{name: "another's volume", raw: with(`"Binds":["prod_db:/h"]`), want: 403, says: "limits.run.volumes", direct: 201},
	{name: "volumes of another", raw: with(`"VolumesFrom":["web"]`), want: 403, direct: 201},
	{name: "a device", raw: with(`"Devices":[{"PathOnHost":"/dev/null","PathInContainer":"/dev/x","CgroupPermissions":"rwm"}]`), want: 403, direct: 201},
	{name: "all devices", raw: with(`"DeviceCgroupRules":["a *:* rwm"]`), want: 403, direct: 201},
	{name: "all capabilities", raw: with(`"CapAdd":["all"]`), want: 403, direct: 201},
	{name: "no seccomp", raw: with(`"SecurityOpt":["seccomp=unconfined"]`), want: 403, direct: 201},
	{name: "the host's processes", raw: with(`"PidMode":"host"`), want: 403, direct: 201},
	{name: "the host's network", raw: with(`"NetworkMode":"host"`), want: 403, says: "limits.run.networks", direct: 201},
	{name: "another's network", raw: with(`"NetworkMode":"container:web"`), want: 403, direct: 201},
	{name: "a network among the endpoints", raw: create(`{"Image":"lab/web:1","NetworkingConfig":{"EndpointsConfig":{"host":{}}}}`), want: 403, direct: 201},
	{name: "a cgroup parent", raw: with(`"CgroupParent":"/system.slice"`), want: 403, direct: 201},
	{name: "another runtime", raw: with(`"Runtime":"io.containerd.runc.v2"`), want: 403, direct: 201},
	{name: "ports of the host", raw: with(`"PortBindings":{"80/tcp":[{"HostPort":"22"}]}`), want: 403, direct: 201},
	{name: "links", raw: with(`"Links":["web:db"]`), want: 403, direct: 201},
	{name: "root by number", raw: create(`{"Image":"lab/web:1","User":"0"}`), want: 403, says: "limits.run.users", direct: 201},
	{name: "restarts", raw: with(`"RestartPolicy":{"Name":"always"}`), want: 403, direct: 201},
	{name: "another's image", raw: create(`{"Image":"evil/web:1"}`), want: 403, says: "docker.run is not allowed", direct: 201},
	{name: "more memory than allowed", raw: with(`"Memory":1073741824`), want: 403, says: "limits.run.memory", direct: 201},
	{name: "an owner's label", raw: create(`{"Image":"lab/web:1","Labels":{"jumpsuite.owner":"other"}}`), want: 403, direct: 201},
	{name: "a platform", raw: post("/v1.41/containers/create?platform=linux/amd64", plainCreate), want: 400, direct: 201},
	{name: "an image of another registry", raw: post("/v1.41/images/create?fromImage=127.0.0.1:1/x&tag=1", ""), want: 403, says: "docker.pull", shows: "127.0.0.1:1"},
	{name: "all tags", raw: post("/v1.41/images/create?fromImage=lab/web", ""), want: 403, says: "all tags"},
	{name: "an import", raw: post("/v1.41/images/create?fromSrc=http://127.0.0.1:1/x", ""), want: 400, shows: "127.0.0.1:1"},
	{name: "start of a privileged container", raw: post("/v1.41/containers/priv/start", ""), want: 403, says: "it is privileged"}, // runc cannot everywhere
	{name: "start among the host's processes", raw: post("/v1.41/containers/blind/start", ""), want: 403, says: "process namespace", direct: 204},
	{name: "start with a checkpoint", raw: post("/v1.41/containers/stopped/start?checkpoint=c&checkpoint-dir=/root", ""), want: 400},
	{name: "attach to what runs", raw: post("/v1.41/containers/web/attach?stream=1&stdin=1&stdout=1", "", upgradeTCP), want: 403, says: "made or started", direct: 101},
	{name: "kill of another's", raw: post("/v1.41/containers/web/kill?signal=WINCH", ""), want: 403, direct: 204},
	{name: "stop of another's", raw: post("/v1.41/containers/web/stop?t=1", ""), want: 403, direct: 204},
	{name: "resize of another's", raw: post("/v1.41/containers/web/resize?h=10&w=10", ""), want: 403, direct: 200},
	{name: "removal of another's", raw: "DELETE /v1.41/containers/stopped HTTP/1.1\r\nHost: x\r\n\r\n", want: 403, direct: 204},

	// everything else
	{name: "update", raw: post("/v1.41/containers/web/update", `{"RestartPolicy":{"Name":"always"}}`), want: 403, direct: 200},
	{name: "rename", raw: post("/v1.41/containers/web/rename?name=web2", ""), want: 403, direct: 204},
	{name: "pause", raw: post("/v1.41/containers/web/pause", ""), want: 403, direct: 204},
	{name: "restart", raw: post("/v1.41/containers/web/restart?t=1", ""), want: 403, direct: 204},
	{name: "prune", raw: post("/v1.41/volumes/prune", ""), want: 403, direct: 200},
	{name: "build", raw: post("/v1.41/build?networkmode=host&remote=http://127.0.0.1:1/x", ""), want: 403, shows: "127.0.0.1:1"},
	{name: "tag", raw: post("/v1.41/images/evil/web:1/tag?repo=lab/evil&tag=1", ""), want: 403, direct: 201},
	{name: "push", raw: post("/v1.41/images/lab/web/push?tag=1", "", "X-Registry-Auth: e30="), want: 403, direct: 200},
	{name: "load", raw: post("/v1.41/images/load", "", "Content-Type: application/x-tar"), want: 403, direct: 200},
	{name: "save", raw: get("/v1.41/images/lab/web:1/get"), want: 403, direct: 200},
	{name: "removal of an image", raw: "DELETE /v1.41/images/evil/spare:1 HTTP/1.1\r\nHost: x\r\n\r\n", want: 403, direct: 200},
	{name: "a network", raw: post("/v1.41/networks/create", `{"Name":"n1"}`), want: 403, direct: 201},
	{name: "connect to a network", raw: post("/v1.41/networks/prod/connect", `{"Container":"web"}`), want: 403, direct: 200},
	{name: "a volume", raw: post("/v1.41/volumes/create", `{"Name":"scratch1","DriverOpts":{"type":"none","o":"bind","device":"/"}}`), want: 403, direct: 201},
	{name: "plugins", raw: get("/v1.41/plugins"), want: 403, direct: 200},
	{name: "swarm", raw: post("/v1.41/swarm/leave?force=1", ""), want: 403},
	{name: "secrets", raw: get("/v1.41/secrets"), want: 403},

	// the edges of HTTP/1.1
	{name: "a fragment", raw: get("/v1.41/containers/json#x"), want: 400},
	{name: "an absolute URI with a user", raw: "GET https://root@docker/v1.41/containers/json HTTP/1.1\r\nHost: x\r\n\r\n", want: 400, direct: 200},
	{name: "an asterisk", raw: "OPTIONS * HTTP/1.1\r\nHost: x\r\n\r\n", want: 400, direct: 200},
	{name: "two spaces", raw: "GET  /v1.41/containers/json HTTP/1.1\r\nHost: x\r\n\r\n", want: 505},
	{name: "a tab for a space", raw: "GET\t/v1.41/containers/json HTTP/1.1\r\nHost: x\r\n\r\n", want: 400},
	{name: "a space in the path", raw: "GET /v1.41/containers/json /x HTTP/1.1\r\nHost: x\r\n\r\n", want: 505},
	{name: "another HTTP/1", raw: "GET /v1.41/containers/json HTTP/1.2\r\nHost: x\r\n\r\n", want: 505, direct: 200},
	{name: "http in lower case", raw: "GET /v1.41/containers/json http/1.1\r\nHost: x\r\n\r\n", want: 505},
	{name: "an empty line first", raw: "\r\nGET /v1.41/containers/json HTTP/1.1\r\nHost: x\r\n\r\n", want: 400},
	{name: "a NUL in the path", raw: "GET /v1.41/containers/json\x00 HTTP/1.1\r\nHost: x\r\n\r\n", want: 400},
	{name: "a NUL in a header", raw: "GET /v1.41/containers/json HTTP/1.1\r\nHost: x\r\nX: a\x00b\r\n\r\n", want: 400},
	{name: "a bare carriage return", raw: "GET /v1.41/containers/json HTTP/1.1\r\nHost: x\r\nX: a\rY: b\r\n\r\n", want: 400},
	{name: "a header without a name", raw: "GET /v1.41/containers/json HTTP/1.1\r\nHost: x\r\n: b\r\n\r\n", want: 400, direct: 200},
	{name: "a header without a colon", raw: "GET /v1.41/containers/json HTTP/1.1\r\nHost: x\r\nnonsense\r\n\r\n", want: 400},
	{name: "a list of lengths", raw: "POST /v1.41/containers/create HTTP/1.1\r\nHost: x\r\nContent-Length: 2, 2\r\n\r\n{}", want: 400},
	{name: "a length in hex", raw: "POST /v1.41/containers/create HTTP/1.1\r\nHost: x\r\nContent-Length: 0x2\r\n\r\n{}", want: 400},
	{name: "a length beyond all numbers", raw: "POST /v1.41/containers/create HTTP/1.1\r\nHost: x\r\nContent-Length: 18446744073709551618\r\n\r\n{}", want: 400},
	{name: "chunked twice", raw: "POST /v1.41/containers/create HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked, chunked\r\n\r\n0\r\n\r\n", want: 501},
	{name: "chunked in two headers", raw: "POST /v1.41/containers/create HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n\r\n0\r\n\r\n", want: 400},
	{name: "a chunk beyond all numbers", raw: chunks("fffffffffffffffff\r\n{}\r\n0\r\n\r\n"), want: 400},
	{name: "a chunk with a sign", raw: chunks("-2\r\n{}\r\n0\r\n\r\n"), want: 400},
	{name: "a chunk in hex notation", raw: chunks("0x2\r\n{}\r\n0\r\n\r\n"), want: 400},
	{name: "a chunk without its end", raw: chunks("2\r\n{}0\r\n\r\n"), want: 400},
	{name: "a chunk with a bare line feed", raw: chunks("2\n{}\n0\n\n"), want: 400},
	{name: "a chunk's extension that goes on and on", raw: chunks("2;" + strings.Repeat("x", 64<<10) + "\r\n{}\r\n0\r\n\r\n"), want: 431},
	{name: "a wish to go on", raw: post("/v1.41/containers/create", plainCreate, "Expect: 100-continue", "Content-Type: application/json"), want: 417},
	{name: "a slash that is too long in UTF-8", raw: get("/v1.41/containers/web%c0%afarchive"), want: 403},
	{name: "a question mark in the path", raw: get("/v1.41/containers/web%3fall=1/json"), want: 404},
	{name: "parameters in the path", raw: get("/v1.41/containers/web;x=1/json"), want: 404},
	{name: "a version in wide digits", raw: get("/v1.%ef%bc%94%ef%bc%91/containers/json"), want: 404},
	{name: "a NUL in the query", raw: post("/v1.41/containers/create?name=x%00y", plainCreate), want: 400},
	{name: "a line feed in the query", raw: post("/v1.41/containers/web/kill?signal=TERM%0d%0aX:y", ""), want: 400},
	{name: "a query that is no escape", raw: get("/v1.41/containers/json?all=%zz"), want: 400},
	{name: "a question mark twice", raw: get("/v1.41/containers/json?all=1?limit=1"), want: 400, direct: 200},
	{name: "a path as an image", raw: get("/v1.41/images/../containers/json"), want: 400},
	{name: "an escaped path as an image", raw: get("/v1.41/images/%2e%2e/json"), want: 400},

	// the edges of JSON
	{name: "a key with a Kelvin sign", raw: create("{\"Image\":\"lab/web:1\",\"HostConfig\":{\"Networ\u212aMode\":\"host\"}}"), want: 400, direct: 201},
	{name: "a key with a long s", raw: create("{\"Image\":\"lab/web:1\",\"HostConfig\":{\"Bind\u017f\":[\"/etc:/h\"]}}"), want: 400, direct: 201},
	{name: "a key with an escaped long s", raw: create(`{"Image":"lab/web:1","Ho\u017ftConfig":{"PidMode":"host"}}`), want: 400, direct: 201},
	{name: "a key twice by an escape", raw: create(`{"Image":"lab/web:1","HostConfig":{"Privileged":false,"\u0050rivileged":true}}`), want: 400, says: "twice", direct: 201},
	{name: "a key twice in another case", raw: create(`{"Image":"lab/web:1","HostConfig":{"Privileged":false,"privileged":true}}`), want: 400, direct: 201},
	{name: "null, and then the object", raw: create(`{"Image":"lab/web:1","HostConfig":null,"HostConfig":{"Privileged":true}}`), want: 400, direct: 201},
	{name: "a key with a NUL", raw: create(`{"Image":"lab/web:1","HostConfig\u0000":{"Privileged":true}}`), want: 400, direct: 201},
	{name: "a key of the empty name", raw: create(`{"Image":"lab/web:1","":{"Privileged":true}}`), want: 400, direct: 201},
	{name: "a number beyond all numbers", raw: with(`"Memory":99999999999999999999`), want: 400},
	{name: "a number that is infinite", raw: with(`"NanoCpus":1e400`), want: 400},
	{name: "a number as a float", raw: with(`"Memory":8388608.0`), want: 400},
	{name: "an exponent", raw: with(`"PidsLimit":1e9`), want: 400},
	{name: "processes without number", raw: with(`"PidsLimit":9223372036854775807`), want: 403, direct: 201},
	{name: "very many arguments", raw: create(`{"Image":"lab/web:1","Cmd":["x"` + strings.Repeat(`,"x"`, 25000) + `]}`), want: 400, direct: 201},
	{name: "very many labels", raw: create(`{"Image":"lab/web:1","Labels":{"a":"b"` + manyKeys(30000) + `}}`), want: 400, direct: 201},
	{name: "lists in lists", raw: create(`{"Image":"lab/web:1","Cmd":` + strings.Repeat("[", 5000) + strings.Repeat("]", 5000) + `}`), want: 400},
	{name: "a comment", raw: create(`{"Image":"lab/web:1"/*,*/}`), want: 400},
	{name: "a comma too many", raw: create(`{"Image":"lab/web:1",}`), want: 400},
	{name: "a list for an object", raw: create(`[{"Image":"lab/web:1"}]`), want: 400},
	{name: "null for an object", raw: create(`null`), want: 400},
	{name: "nothing", raw: "POST /v1.41/containers/create HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 0\r\n\r\n", want: 400},
	{name: "UTF-16", raw: create("\xff\xfe{\x00}\x00"), want: 400},
	{name: "a NUL behind the end", raw: create(`{"Image":"lab/web:1"}` + "\x00"), want: 400, direct: 201},
	{name: "a privileged exec in lower case", raw: execWith(`"privileged":true`), want: 400, direct: 201},
	{name: "a NUL in a variable", raw: create(`{"Image":"lab/web:1","Env":["A=\u0000"]}`), want: 403, direct: 201},
	{name: "a NUL in a name of the host", raw: create(`{"Image":"lab/web:1","Hostname":"a\u0000b"}`), want: 403, direct: 201},
	{name: "a bind with a NUL", raw: with(`"Binds":["/srv\u0000/../etc:/h"]`), want: 403, direct: 201},
	{name: "a filter twice", raw: get("/v1.41/containers/json?filters=%7B%22label%22%3A%7B%22a%22%3Atrue%7D%2C%22label%22%3A%7B%22b%22%3Atrue%7D%7D"), want: 400, direct: 200},
	{name: "a filter in another case", raw: get("/v1.41/containers/json?filters=%7B%22Label%22%3A%7B%22a%22%3Atrue%7D%7D"), want: 400},

	// every other way that a configuration has
	{name: "a bind that propagates", raw: with(`"Binds":["/srv:/h:rshared"]`), want: 403, direct: 201},
	{name: "a bind that is labelled anew", raw: with(`"Binds":["/srv:/h:z"]`), want: 403, direct: 201},
	{name: "a bind through a folder above", raw: with(`"Binds":["/srv/../etc:/h"]`), want: 403, direct: 201},
	{name: "an image as a mount", raw: with(`"Mounts":[{"Type":"image","Source":"evil/web:1","Target":"/h"}]`), want: 403},
	{name: "a pipe as a mount", raw: with(`"Mounts":[{"Type":"npipe","Source":"x","Target":"/h"}]`), want: 403},
	{name: "a bind that makes its source", raw: with(`"Mounts":[{"Type":"bind","Source":"/root/made","Target":"/h","BindOptions":{"CreateMountpoint":true}}]`), want: 403},
	{name: "a part of a volume", raw: with(`"Mounts":[{"Type":"volume","Source":"scratch1","Target":"/h","VolumeOptions":{"Subpath":"../.."}}]`), want: 403, direct: 201},
	{name: "a tmpfs for programs of others", raw: with(`"Tmpfs":{"/h":"exec,suid,dev"}`), want: 403, direct: 201},
	{name: "a large tmpfs", raw: with(`"Tmpfs":{"/h":"size=64g"}`), want: 403, direct: 201},
	{name: "a tmpfs with options", raw: with(`"Mounts":[{"Type":"tmpfs","Target":"/h","TmpfsOptions":{"Options":[["exec"],["suid"]]}}]`), want: 403, direct: 201},
	{name: "a volume driver", raw: with(`"VolumeDriver":"local"`), want: 403, direct: 201},
	{name: "a log that goes to a socket", raw: with(`"LogConfig":{"Type":"syslog","Config":{"syslog-address":"unix:///var/run/docker.sock"}}`), want: 403},
	{name: "a log that goes elsewhere", raw: with(`"LogConfig":{"Type":"syslog","Config":{"syslog-address":"udp://127.0.0.1:1"}}`), want: 403, direct: 201},
	{name: "first to live, last to be killed", raw: with(`"OomScoreAdj":-1000`), want: 403, direct: 201},
	{name: "never to be killed", raw: with(`"OomKillDisable":true`), want: 403, direct: 201},
	{name: "limits of its own", raw: with(`"Ulimits":[{"Name":"nofile","Soft":1000000,"Hard":1000000}]`), want: 403, direct: 201},
	{name: "shared memory without end", raw: with(`"ShmSize":68719476736`), want: 403, direct: 201},
	{name: "options of the storage", raw: with(`"StorageOpt":{"size":"100G"}`), want: 403},
	{name: "annotations", raw: with(`"Annotations":{"a":"b"}`), want: 403, direct: 201},
	{name: "a name server", raw: with(`"Dns":["192.0.2.1"]`), want: 403, direct: 201},
	{name: "a search domain", raw: with(`"DnsSearch":["evil.example"]`), want: 403, direct: 201},
	{name: "a host by another address", raw: with(`"ExtraHosts":["registry:192.0.2.1"]`), want: 403, direct: 201},
	{name: "the host's IPC", raw: with(`"IpcMode":"host"`), want: 403, direct: 201},
	{name: "another's IPC", raw: with(`"IpcMode":"container:web"`), want: 403, direct: 201},
	{name: "the host's name", raw: with(`"UTSMode":"host"`), want: 403, direct: 201},
	{name: "the host's users", raw: with(`"UsernsMode":"host"`), want: 403, direct: 201},
	{name: "the host's cgroups", raw: with(`"CgroupnsMode":"host"`), want: 403, direct: 201},
	{name: "another's cgroup", raw: with(`"Cgroup":"container:web"`), want: 403, direct: 201},
	{name: "a sysctl", raw: with(`"Sysctls":{"net.ipv4.ip_forward":"1"}`), want: 403, direct: 201},
	{name: "nothing masked", raw: with(`"MaskedPaths":[]`), want: 403, direct: 201},
	{name: "nothing read-only", raw: with(`"ReadonlyPaths":[]`), want: 403, direct: 201},
	{name: "no AppArmor", raw: with(`"SecurityOpt":["apparmor=unconfined"]`), want: 403, direct: 201},
	{name: "new privileges after all", raw: with(`"SecurityOpt":["no-new-privileges","no-new-privileges=false"]`), want: 403, direct: 201},
	{name: "labels off", raw: with(`"SecurityOpt":["label=disable"]`), want: 403, direct: 201},
	{name: "writable cgroups", raw: with(`"SecurityOpt":["writable-cgroups=true"]`), want: 403},
	{name: "a capability as a word", raw: with(`"CapAdd":["SYS_ADMIN"]`), want: 403, direct: 201},
	{name: "another group", raw: with(`"GroupAdd":["0"]`), want: 403, direct: 201},
	{name: "all ports", raw: with(`"PublishAllPorts":true`), want: 403, direct: 201},
	{name: "weights of the disk", raw: with(`"BlkioWeight":1000`), want: 403, direct: 201},
	{name: "processors of its own", raw: with(`"CpusetCpus":"0"`), want: 403, direct: 201},
	{name: "real time", raw: with(`"CpuRealtimeRuntime":1000`), want: 403, direct: 201},
	{name: "a device of another kind", raw: with(`"DeviceRequests":[{"Driver":"nvidia","Count":-1,"Capabilities":[["gpu"]]}]`), want: 403, direct: 201},
	{name: "another's processes", raw: with(`"PidMode":"container:web"`), want: 403, direct: 201},
	{name: "a network by its path", raw: with(`"NetworkMode":"ns:/proc/1/ns/net"`), want: 403, direct: 201},
	{name: "the host's network in capitals", raw: with(`"NetworkMode":"Host"`), want: 403, direct: 201},
	{name: "a domain", raw: create(`{"Image":"lab/web:1","Cmd":["true"],"Domainname":"evil.example"}`), want: 403, direct: 201},
	{name: "an address of the card", raw: create(`{"Image":"lab/web:1","Cmd":["true"],"MacAddress":"02:00:00:00:00:01"}`), want: 403, direct: 201},
	{name: "a stop that takes for ever", raw: create(`{"Image":"lab/web:1","Cmd":["true"],"StopTimeout":1000000000}`), want: 403, direct: 201},
	{name: "a signal that does not stop", raw: create(`{"Image":"lab/web:1","Cmd":["true"],"StopSignal":"SIGCHLD"}`), want: 403, direct: 201},
	{name: "a check of its health", raw: create(`{"Image":"lab/web:1","Cmd":["true"],"Healthcheck":{"Test":["CMD","true"],"Interval":1000000}}`), want: 403, direct: 201},
	{name: "for the next build", raw: create(`{"Image":"lab/web:1","Cmd":["true"],"OnBuild":["RUN id"]}`), want: 403, direct: 201},
	{name: "a label of ECS's", raw: create(`{"Image":"lab/web:1","Cmd":["true"],"Labels":{"com.amazonaws.ecs.task-definition-family":"web"}}`), want: 403, direct: 201},
	{name: "a folder of processes", raw: create(`{"Image":"lab/web:1","Cmd":["true"],"WorkingDir":"/proc/self/fd/8"}`), want: 403, direct: 201},
	{name: "an address in a network", raw: create(`{"Image":"lab/web:1","Cmd":["true"],"NetworkingConfig":{"EndpointsConfig":{"bridge":{"IPAMConfig":{"IPv4Address":"172.17.0.99"}}}}}`), want: 403, direct: 201},
	{name: "a name in a network", raw: create(`{"Image":"lab/web:1","Cmd":["true"],"NetworkingConfig":{"EndpointsConfig":{"bridge":{"Aliases":["prod-db"]}}}}`), want: 403, direct: 201},
	{name: "links in a network", raw: create(`{"Image":"lab/web:1","Cmd":["true"],"NetworkingConfig":{"EndpointsConfig":{"bridge":{"Links":["web:db"]}}}}`), want: 403, direct: 201},
}

func (a attack) by() string {
	if a.user == "" {
		return "dev"
	}
	return a.user
}

func (a attack) check(t *testing.T, got answered) {
	t.Helper()
	if got.status != a.want || !strings.Contains(got.body, a.says) {
		t.Errorf("got %d %q (%v), want %d and %q", got.status, got.body, got.err, a.want, a.says)
	}
	if got.status >= 400 && !strings.HasPrefix(a.raw, "HEAD") && !json.Valid([]byte(got.body)) {
		t.Errorf("the answer is no JSON: %q", got.body)
	}
}

func TestAttacksAreRefusedAndReachNoEngine(t *testing.T) {
	for _, a := range attacks {
		t.Run(a.name, func(t *testing.T) {
			engine := newFakeEngine(t)
			h := newHarness(t, engine.socket, "test")
			a.check(t, exchangeRaw(t, h.socket(a.by()), a.raw))
			if reached := engine.changes(); len(reached) > 0 {
				t.Errorf("the Engine was asked %q", reached)
			}
			if e := h.refusals(); len(e) != 1 || bool(e[0].Verdict) {
				if a.want != http.StatusNotFound || len(e) > 1 {
					t.Errorf("got %d audit events %+v, want one refusal", len(e), e)
				}
			}
		})
	}
}

// refusals is what the gate has on record that had something to refuse: the host's,
// where the jump server's does not know why. That one's log says that it was. Where the
// jump server's has asked on terms that did not fit, its own refusal comes last.
func (h *harness) refusals() []audit.Event {
	here := h.log.all()
	if h.host == nil || len(here) < 2 {
		return here
	}
	last := here[len(here)-1]
	if !last.Verdict && here[0].Reason == "if the rules are for that container" {
		return []audit.Event{last}
	}
	if last.Detail != "the host's gate refused, rule gate" && (last.Result == nil || !strings.Contains(last.Result.Error, "host host1 refuses")) {
		h.t.Errorf("the jump server's log does not say that the host refused: %+v", here)
	}
	return h.hostLog.all()
}

// victim is a container that attacks speak of.
type victim struct {
	name   string
	config map[string]any
	start  bool
}

var victims = []victim{
	{"web", sleeper(nil), true},
	{"stopped", sleeper(map[string]any{"Cmd": []string{"true"}}), false},
	{"priv", sleeper(map[string]any{"HostConfig": map[string]any{"Privileged": true}}), false},
	{"seer", sleeper(map[string]any{"HostConfig": map[string]any{"PidMode": "host"}}), true},
	{"blind", sleeper(map[string]any{"HostConfig": map[string]any{"PidMode": "host"}}), false},
}

// furnishVictims makes those that are not there as they were.
func furnishVictims(t *testing.T, engine string) {
	exchangeRaw(t, engine, post("/v1.41/images/evil/web:1/tag?repo=evil/spare&tag=1", ""))
	exchangeRaw(t, engine, post("/v1.41/networks/create", `{"Name":"prod","CheckDuplicate":true}`))
	for _, v := range victims {
		a := exchangeRaw(t, engine, get("/v1.41/containers/"+v.name+"/json"))
		var is struct {
			State struct{ Running, Paused bool }
		}
		json.Unmarshal([]byte(a.body), &is)
		if a.status == http.StatusOK && is.State.Running == v.start && !is.State.Paused {
			continue
		}
		exchangeRaw(t, engine, "DELETE /v1.41/containers/"+v.name+"?force=1 HTTP/1.1\r\nHost: x\r\n\r\n")
		makeContainer(t, engine, v.name, v.config, v.start)
	}
}

// state is what attacks would change.
func state(t *testing.T, engine string) string {
	t.Helper()
	var lines []string
	var containers []struct {
		ID, Image, State string
		Names            []string
	}
	list(t, engine, "/v1.41/containers/json?all=1", &containers)
	for _, c := range containers {
		lines = append(lines, fmt.Sprint(c.ID, c.Names, c.Image, c.State))
	}
	var images []struct {
		ID       string
		RepoTags []string
	}
	list(t, engine, "/v1.41/images/json", &images)
	for _, i := range images {
		slices.Sort(i.RepoTags)
		lines = append(lines, fmt.Sprint(i.ID, i.RepoTags))
	}
	var volumes struct{ Volumes []struct{ Name string } }
	list(t, engine, "/v1.41/volumes", &volumes)
	var networks []struct{ Name string }
	list(t, engine, "/v1.41/networks", &networks)
	slices.Sort(lines)
	return fmt.Sprint(strings.Join(lines, "\n"), volumes, len(networks))
}

func list(t *testing.T, engine, path string, into any) {
	t.Helper()
	a := exchangeRaw(t, engine, get(path))
	if err := json.Unmarshal([]byte(a.body), into); err != nil {
		t.Fatalf("%s: %v: %s", path, err, a.body)
	}
}

func TestAttacksChangeNothingOnARealEngine(t *testing.T) {
	engine := needEngine(t)
	h := newHarness(t, engine, "test")
	furnishVictims(t, engine)
	before := state(t, engine)
	for _, a := range attacks {
		t.Run(a.name, func(t *testing.T) {
			a.check(t, exchangeRaw(t, h.socket(a.by()), a.raw))
			if after := state(t, engine); after != before {
				t.Fatalf("something changed on the Engine, from\n%s\nto\n%s", before, after)
			}
		})
	}
}

// mended28 are attacks of which Engine 28 refuses what 20.10 takes.
var mended28 = map[string]int{
	"old version": 400, "start of an old version with a body": 400, "a second value": 400, "a header without a name": 400, "a NUL behind the end": 400,
	"a part of a volume": 400, "a tmpfs with options": 400, "an address in a network": 400, "a name in a network": 400,
}

// The control: the same bytes, straight to an Engine, are no refusal. Without it
// the two tests above would prove little.
func TestAttacksAreRealWithoutTheGate(t *testing.T) {
	engine := needEngine(t)
	version := exchangeRaw(t, engine, get("/_ping")).header.Get("Api-Version")
	if version != "1.41" && version != "1.51" {
		t.Skipf("the table has the answers of Engines 20.10 and 28, this one's API is %s", version)
	}
	real := 0
	for _, a := range attacks {
		want := a.direct
		if status, ok := mended28[a.name]; ok && version == "1.51" {
			want = status
		}
		if want == 0 && a.shows == "" {
			continue
		}
		real++
		furnishVictims(t, engine)
		t.Run(a.name, func(t *testing.T) {
			defer cleanUp(t, engine)
			got := exchangeRaw(t, engine, a.raw)
			if want != 0 && got.status != want || !strings.Contains(got.body, a.shows) {
				t.Errorf("got %d %q, want %d and %q: is this no attack on this Engine?", got.status, got.body, want, a.shows)
			}
		})
	}
	if real < 180 {
		t.Errorf("only %d attacks are shown to be real", real)
	}
}

// cleanUp removes what attacks made.
func cleanUp(t *testing.T, engine string) {
	del := func(path string) { exchangeRaw(t, engine, "DELETE "+path+" HTTP/1.1\r\nHost: x\r\n\r\n") }
	var containers []struct {
		ID    string
		Names []string
	}
	list(t, engine, "/v1.41/containers/json?all=1", &containers)
	for _, c := range containers {
		if slices.ContainsFunc(victims, func(v victim) bool { return slices.Contains(c.Names, "/"+v.name) }) {
			continue
		}
		del("/v1.41/containers/" + c.ID + "?force=1&v=1")
	}
	exchangeRaw(t, engine, post("/v1.41/networks/prod/disconnect", `{"Container":"web","Force":true}`))
	for _, path := range []string{"/v1.41/images/lab/evil:1", "/v1.41/images/lab/stolen:latest", "/v1.41/volumes/scratch1", "/v1.41/volumes/prod_db", "/v1.41/networks/n1"} {
		del(path)
	}
}

func TestEncodedPathsAreForwardedInTheirPlainForm(t *testing.T) {
	for _, path := range []string{"/%63ontainers/json", "/v1.41/%63ontainers/%6ason", "/v1%2e51/containers/json"} {
		engine := newFakeEngine(t)
		h := newHarness(t, engine.socket, "test")
		if a := exchangeRaw(t, h.socket("dev"), get(path)); a.status != http.StatusOK {
			t.Errorf("%s: got %d %s, want 200", path, a.status, a.body)
		}
		want := "GET /v1.51/containers/json"
		if got := engine.requests(); got[len(got)-1] != want {
			t.Errorf("%s: the Engine was asked %q, want %q", path, got, want)
		}
	}
}

func TestOnlyWhatTheGateBuiltGoesUpstream(t *testing.T) {
	engine := newFakeEngine(t)
	h := newHarness(t, engine.socket, "test")
	raw := "POST /v1.41/containers/create?name=x HTTP/1.1\r\nHost: evil\r\nContent-Type: application/json; charset=utf-8\r\nX-Registry-Auth: c2VjcmV0\r\nCookie: a=b\r\nTransfer-Encoding: chunked\r\n\r\n"
	body := `{"Image":"lab/web:1","Cmd":["true"]}`
	raw += fmt.Sprintf("%x;ext=1\r\n%s\r\n0\r\n\r\n", len(body), body)
	if a := exchangeRaw(t, h.socket("dev"), raw); a.status != http.StatusCreated {
		t.Fatalf("got %d %s, want 201", a.status, a.body)
	}
	changes := engine.changes()
	if len(changes) != 1 || !strings.HasPrefix(changes[0], "POST /v1.51/containers/create?name=x {") {
		t.Fatalf("the Engine was asked %q", changes)
	}
	var sent struct {
		Labels     map[string]string
		HostConfig struct {
			Memory, MemorySwap, CpuPeriod, CpuQuota, PidsLimit int64
			SecurityOpt, CapDrop                               []string
		}
	}
	if err := json.Unmarshal([]byte(changes[0][strings.Index(changes[0], "{"):]), &sent); err != nil {
		t.Fatal(err)
	}
	hc := sent.HostConfig
	if hc.Memory != 64<<20 || hc.MemorySwap != 64<<20 || hc.CpuQuota*2 != hc.CpuPeriod || hc.CpuPeriod == 0 || hc.PidsLimit != 32 {
		t.Errorf("caps: got %+v, want those of the policy", hc)
	}
	if !slices.Equal(hc.SecurityOpt, []string{"no-new-privileges"}) || !slices.Contains(hc.CapDrop, "NET_RAW") {
		t.Errorf("confinement: got %+v", hc)
	}
	if sent.Labels[ownerLabel] != "dev" || sent.Labels[untilLabel] == "" || !isID(sent.Labels[leaseLabel]) {
		t.Errorf("labels: got %v", sent.Labels)
	}
}

// A proxy that copies bytes before it has seen a 101 hands out the raw socket:
// the Engine answers a detached start with 200, and then reads the next request.
func TestARequestBehindAnUpgradeReachesNoEngine(t *testing.T) {
	engine := newFakeEngine(t)
	h := newHarness(t, engine.socket, "test")
	id := newExec(t, h, "dev", `{"AttachStdout":true,"Cmd":["id"]}`)
	smuggled := "POST /v1.41/containers/web/rename?name=owned HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n"
	for _, raw := range []string{
		post("/v1.41/exec/"+id+"/start", `{"Detach":true}`, upgradeTCP, "Content-Type: application/json") + smuggled,
		post("/v1.41/exec/"+id+"/start", `{"Detach":true}`) + smuggled,
	} {
		exchangeRaw(t, h.socket("dev"), raw)
	}
	for _, r := range engine.changes() {
		if strings.Contains(r, "rename") {
			t.Errorf("the Engine was asked %q", r)
		}
	}
}

func TestEachPipelinedRequestIsJudged(t *testing.T) {
	engine := newFakeEngine(t)
	h := newHarness(t, engine.socket, "test")
	conn, err := net.Dial("unix", h.socket("dev"))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(10 * time.Second))
	io.WriteString(conn, get("/_ping")+get("/v1.41/containers/web/export")+get("/v1.41/containers/json"))
	br := bufio.NewReader(conn)
	if a := readAnswer(br); a.status != http.StatusOK {
		t.Errorf("first: got %d, want 200", a.status)
	}
	second := readAnswer(br)
	if second.status != http.StatusForbidden || !second.last {
		t.Errorf("second: got %d %v, want 403 and the end of the connection", second.status, second.header)
	}
	if a := readAnswer(br); a.err == nil {
		t.Errorf("third: got %d, want no answer after a refusal", a.status)
	}
}

// newExec creates an exec in web and returns its id.
func newExec(t *testing.T, h *harness, user, body string) string {
	t.Helper()
	a := exchangeRaw(t, h.socket(user), post("/v1.41/containers/web/exec", body))
	var made struct{ ID string }
	if a.status != http.StatusCreated || json.Unmarshal([]byte(a.body), &made) != nil {
		t.Fatalf("exec: %d %s", a.status, a.body)
	}
	return made.ID
}
