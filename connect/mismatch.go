package connect

import (
	"net/http"

	"github.com/lanyard-proxy/lanyard/tokenstore"
)

// mismatch shows that a reconnect came back with another account than the
// connection's. The new credential is gone already; the old one is as it was.
func (h *Handler) mismatch(w http.ResponseWriter, r *http.Request, f *tokenstore.Flow, x failure, other *mismatchError) {
	in, _ := h.integration(f.Integration)
	h.report(f, x)
	h.mismatchPage(w, r, mismatchView{Flow: f, In: in, Had: other.had, Got: other.got, Again: h.anew(f)})
}
