package e2e_test

import (
	"bytes"
	"encoding/json"
	"io"
	"net/http"
)

// answer is a whole answer.
type answer struct {
	Status int
	Header http.Header
	Body   string
}

func (w *world) do(req *http.Request) answer {
	w.t.Helper()
	a, err := w.tryDo(req)
	if err != nil {
		w.t.Fatal(err)
	}
	return a
}

func (w *world) tryDo(req *http.Request) (answer, error) {
	res, err := http.DefaultTransport.RoundTrip(req)
	if err != nil {
		return answer{}, err
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	if err != nil {
		return answer{}, err
	}
	var head bytes.Buffer
	_ = res.Header.Write(&head)
	w.note(head.Bytes())
	w.note(b)
	w.out.meetAnswer(res.Header, b)
	w.described(req, res, b)
	return answer{res.StatusCode, res.Header, string(b)}, nil
}

// call makes a proxied GET.
func (w *world) call(id, path string) answer {
	w.t.Helper()
	req, err := http.NewRequestWithContext(w.t.Context(), http.MethodGet, w.proxyURL(path), nil)
	if err != nil {
		w.t.Fatal(err)
	}
	w.name(req, id)
	return w.do(req)
}

// name gives a request the key and the connection.
func (w *world) name(req *http.Request, id string) {
	req.Header.Set("Lanyard-Key", w.clientKey)
	req.Header.Set("Connection-Id", id)
}

// api calls /v1 with the API key. in and out may be nil.
func (w *world) api(method, path string, in, out any) answer {
	w.t.Helper()
	var body io.Reader
	if in != nil {
		b, err := json.Marshal(in)
		if err != nil {
			w.t.Fatal(err)
		}
		body = bytes.NewReader(b)
	}
	req, err := http.NewRequestWithContext(w.t.Context(), method, w.proxyURL(path), body)
	if err != nil {
		w.t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+w.apiKey)
	if in != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	a := w.do(req)
	if out != nil {
		if err := json.Unmarshal([]byte(a.Body), out); err != nil {
			w.t.Fatalf("%s %s: HTTP %d, %v: %s", method, path, a.Status, err, a.Body)
		}
	}
	return a
}

// connection is what the API says of one.
type connection struct {
	ID           string `json:"id"`
	Status       string `json:"status"`
	StatusReason string `json:"status_reason"`
	Generation   uint64 `json:"generation"`
	ConnectURL   string `json:"connect_url"`
	UserID       string `json:"user_id"`
}

func (w *world) connection(id string) connection {
	w.t.Helper()
	var c connection
	w.api(http.MethodGet, "/v1/connections/"+id, nil, &c)
	return c
}

// begin asks the API for a connect link.
func (w *world) begin(user string) connection {
	w.t.Helper()
	var c connection
	a := w.api(http.MethodPost, "/v1/connections", map[string]any{"integration": "fake", "user_id": user, "redirect_url": w.app.url + "/callback", "state": "app-state"}, &c)
	if a.Status != http.StatusCreated {
		w.t.Fatalf("begin: HTTP %d: %s", a.Status, a.Body)
	}
	return c
}

func (w *world) complete(id, code, user string) {
	w.t.Helper()
	a := w.api(http.MethodPost, "/v1/connections/"+id+"/complete", map[string]string{"completion_code": code, "user_id": user}, nil)
	if a.Status != http.StatusOK {
		w.t.Fatalf("complete: HTTP %d: %s", a.Status, a.Body)
	}
}
