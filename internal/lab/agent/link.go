package agent

import (
	"bytes"
	"context"
	cryptorand "crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"encoding/xml"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	v4 "github.com/aws/aws-sdk-go-v2/aws/signer/v4"
	"github.com/coder/websocket"

	"jumpsuite/internal/intact"
	"jumpsuite/internal/session/frame"
)

// A lost websocket is dialled again so often after the first time, with a wait that doubles
// from up to twice firstWait on.
const (
	attempts  = 5
	firstWait = 100 * time.Millisecond
	mostWait  = 5 * time.Second
	dialLimit = 20 * time.Second
	readLimit = 1 << 20
)

// connect opens the websocket, the first and each later one.
func (e *end) connect(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, dialLimit)
	defer cancel()
	token, err := e.token(ctx)
	if err != nil {
		return err
	}
	address := e.Service + "/v1/data-channel/" + e.Session + "?role=publish_subscribe"
	request, err := e.signed(ctx, http.MethodGet, address, nil)
	if err != nil {
		return err
	}
	conn, _, err := intact.Dial(ctx, strings.Replace(address, "http", "ws", 1), websocket.DialOptions{HTTPHeader: request.Header})
	if err != nil {
		return err
	}
	conn.SetReadLimit(readLimit)
	open := frame.Open{Schema: frame.OpenSchema, RequestID: newID().String(), Token: token, ClientID: newID().String(), InstanceID: e.Instance}
	if err := conn.Write(ctx, websocket.MessageText, frame.Encode(open)); err != nil {
		conn.CloseNow()
		return err
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	e.conn, e.paused = conn, false
	return nil
}

// token asks for the right to open the data channel.
func (e *end) token(ctx context.Context) (string, error) {
	body, err := json.Marshal(map[string]string{"MessageSchemaVersion": frame.OpenSchema, "RequestId": newID().String(), "ClientId": newID().String()})
	if err != nil {
		return "", err
	}
	request, err := e.signed(ctx, http.MethodPost, e.Service+"/v1/data-channel/"+e.Session, body)
	if err != nil {
		return "", err
	}
	answer, err := http.DefaultClient.Do(request)
	if err != nil {
		return "", err
	}
	defer answer.Body.Close()
	text, err := io.ReadAll(answer.Body)
	if err != nil {
		return "", err
	}
	if answer.StatusCode != http.StatusCreated {
		return "", fmt.Errorf("unexpected response from the service %s", text)
	}
	var out struct {
		Token string `xml:"TokenValue"`
	}
	err = xml.Unmarshal(text, &out)
	return out.Token, err
}

func (e *end) signed(ctx context.Context, method, address string, body []byte) (*http.Request, error) {
	request, err := http.NewRequestWithContext(ctx, method, address, bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	digest := sha256.Sum256(body)
	credentials := aws.Credentials{AccessKeyID: e.Key, SecretAccessKey: e.Secret}
	return request, v4.NewSigner().SignHTTP(ctx, credentials, request, hex.EncodeToString(digest[:]), "ssmmessages", e.Region, time.Now())
}

// listen reads the websocket, and gets another when it is lost. Without one the session goes
// on, as far as the port is concerned: it ends with the port, or when the service
// says so on the control channel.
func (e *end) listen(ctx context.Context) {
	for {
		e.readAll(ctx)
		if ctx.Err() != nil || !e.reconnect(ctx) {
			return
		}
	}
}

func (e *end) readAll(ctx context.Context) {
	e.mu.Lock()
	conn := e.conn
	e.mu.Unlock()
	defer conn.CloseNow()
	for {
		kind, b, err := conn.Read(ctx)
		if err != nil {
			return
		}
		if kind == websocket.MessageBinary {
			e.got(ctx, b)
		}
	}
}

func (e *end) reconnect(ctx context.Context) bool {
	wait := firstWait + rand.N(firstWait)
	for attempt := 0; ; attempt++ {
		err := e.connect(ctx)
		if err == nil {
			return true
		}
		if attempt == attempts || strings.Contains(err.Error(), terminated) {
			return false
		}
		select {
		case <-time.After(wait):
		case <-ctx.Done():
			return false
		}
		wait = min(2*wait, mostWait)
	}
}

// terminated is the service's word for a session that is over: nobody asks again then.
const terminated = "Session is already terminated"

func (e *end) hangUp() {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.conn.CloseNow()
}

// newID is a random UUID (version 4).
func newID() frame.ID {
	var id frame.ID
	cryptorand.Read(id[:]) // never fails
	id[6] = id[6]&0x0f | 0x40
	id[8] = id[8]&0x3f | 0x80
	return id
}
