package fakeprovider

import (
	"io"
	"net/http"
)

// AnswerWith answers with exactly this, header and all.
func AnswerWith(status int, header http.Header, body string) Fault {
	f := Answer(status, "", body)
	f.replace.header = header.Clone()
	return f
}

// Raw takes the connection over before the request is processed, and has write
// say what it likes on it, HTTP or not; then it is closed. Writing fails once the
// caller has hung up.
func Raw(name string, write func(conn io.Writer)) Fault {
	return Fault{name: name, drop: true, raw: write}
}

// takeOver runs a Raw fault.
func (f Fault) takeOver(w http.ResponseWriter) {
	conn, _, err := http.NewResponseController(w).Hijack()
	if err != nil {
		return
	}
	defer func() { _ = conn.Close() }()
	f.raw(conn)
}
