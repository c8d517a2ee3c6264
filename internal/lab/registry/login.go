package registry

import (
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"io"
	"net/http"
	"strings"
	"time"
)

// User is the name that goes with a password of ECR.
const User = "AWS"

// PasswordLife is how long a password is good for (ECR API reference,
// GetAuthorizationToken).
const PasswordLife = 12 * time.Hour

// presigned is the parameter that makes a URL good without a login, for
// download URLs. AWS's carry a signature instead.
const presigned = "X-Amz-Security-Token"

// password is what a password is in base64, as ECR's are: they carry their own
// end and their proof.
type password struct {
	Payload    []byte `json:"payload"` // random, then the proof
	Version    string `json:"version"`
	Type       string `json:"type"`
	Expiration int64  `json:"expiration"` // Unix time
}

const nonceSize = 32

// Password makes a password for the account's registry, good until expires, in lab time.
func (r *Registry) Password() (word string, expires time.Time) {
	expires = r.clock.Now().Add(PasswordLife).Truncate(time.Second)
	p := password{Payload: make([]byte, nonceSize), Version: "2", Type: "DATA_KEY", Expiration: expires.Unix()}
	rand.Read(p.Payload)
	p.Payload = append(p.Payload, r.proof(p.Payload, p.Expiration)...)
	text, err := json.Marshal(p)
	if err != nil {
		panic(err) // a struct of bytes, strings and a number always marshals
	}
	return base64.StdEncoding.EncodeToString(text), expires
}

// proof shows that a password was made here.
func (r *Registry) proof(nonce []byte, expiration int64) []byte {
	m := hmac.New(sha256.New, r.secret)
	m.Write(nonce)
	json.NewEncoder(m).Encode(expiration)
	return m.Sum(nil)
}

// known finds out whether a password was made here, and whether it has ended.
func (r *Registry) known(word string) (ok, ended bool) {
	text, err := base64.StdEncoding.DecodeString(word)
	var p password
	if err != nil || json.Unmarshal(text, &p) != nil || len(p.Payload) < nonceSize {
		return false, false
	}
	if !hmac.Equal(p.Payload[nonceSize:], r.proof(p.Payload[:nonceSize], p.Expiration)) {
		return false, false
	}
	return true, r.clock.Now().Unix() >= p.Expiration
}

// Presign adds to the URL of a layer what it takes without a login, where one is
// asked for.
func (r *Registry) Presign(url string) string {
	if !r.world.RegistryLogin {
		return url
	}
	word, _ := r.Password()
	return url + "?" + presigned + "=" + strings.NewReplacer("+", "%2B", "/", "%2F", "=", "%3D").Replace(word)
}

// admit reports whether a request to a registry host may go on; else it has
// been answered as ECR does. Only the account's ECR asks for a login.
func (r *Registry) admit(w http.ResponseWriter, q *http.Request, host string) bool {
	if !r.world.RegistryLogin || host != r.world.ECR() {
		return true
	}
	user, word, basic := q.BasicAuth()
	if signed := q.URL.Query().Get(presigned); signed != "" && strings.Contains(q.URL.Path, "/blobs/") {
		user, word, basic = User, signed, true
	}
	known, ended := r.known(word)
	switch {
	case !basic:
		r.refuse(w, http.StatusUnauthorized, "text/plain; charset=utf-8", "Not Authorized\n")
	case user != User || !known:
		r.refuse(w, http.StatusUnauthorized, "text/plain; charset=utf-8", "Not Authorized\n")
	case ended:
		r.refuse(w, http.StatusForbidden, "application/json; charset=utf-8",
			`{"errors":[{"code":"DENIED","message":"Your authorization token has expired. Reauthenticate and try again."}]}`)
	default:
		return true
	}
	return false
}

func (r *Registry) refuse(w http.ResponseWriter, status int, media, text string) {
	h := w.Header()
	h.Set("Docker-Distribution-Api-Version", "registry/2.0")
	h.Set("Content-Type", media)
	if status == http.StatusUnauthorized {
		h.Set("Www-Authenticate", `Basic realm="https://`+r.world.ECR()+`/",service="ecr.amazonaws.com"`)
	}
	w.WriteHeader(status)
	io.WriteString(w, text)
}

// Login is a login for a registry host that asks for one; empty for the others.
func (r *Registry) Login(host string) (user, word string) {
	if !r.world.RegistryLogin || host != r.world.ECR() {
		return "", ""
	}
	word, _ = r.Password()
	return User, word
}
