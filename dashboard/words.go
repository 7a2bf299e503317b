package dashboard

import (
	"embed"

	"github.com/lanyard-proxy/lanyard/tokenstore"
	"github.com/lanyard-proxy/lanyard/ui"
)

//go:embed words
var wordFiles embed.FS

// words are the texts of all pages. Some keys are made of what they are about:
//
//	status.…  what a connection is good for
//	reason.…  a status_reason, or an event's
//	event.…   an event's type
//	by.…      the kind of those who did something; with .named, of those with a name
//	done.…    what became of a change, by its name in the query `done`
//	refusal.… why something was not done; with .text, what there is to say about it
var words = must(ui.ReadWords(wordFiles, "words"))

func must[T any](v T, err error) T {
	if err != nil {
		panic(err) // a file of this program is broken
	}
	return v
}

// reasonText returns a reason's code in words, empty where there are none.
func reasonText(l *ui.Lang, code string) string {
	if key := "reason." + code; l.Has(key) {
		return l.Say(key)
	}
	return ""
}

// marks are the classes of the marks before events: n, w or e.
var marks = map[tokenstore.EventType]string{
	tokenstore.EventBegun:         "n",
	tokenstore.EventLinked:        "n",
	tokenstore.EventAuthorized:    "n",
	tokenstore.EventFailed:        "w",
	tokenstore.EventDropped:       "w",
	tokenstore.EventRefreshFailed: "w",
	tokenstore.EventExpired:       "e",
	tokenstore.EventScopes:        "w",
	tokenstore.EventRevoked:       "n",
	tokenstore.EventDeleted:       "n",
	tokenstore.EventChanged:       "n",
	tokenstore.EventUsed:          "n",
	tokenstore.EventDamaged:       "e",
	tokenstore.EventFlowEnded:     "w",
	tokenstore.EventCompletion:    "w",
	tokenstore.EventCallRefused:   "w",
	tokenstore.EventKeyRefused:    "w",
	tokenstore.EventBackup:        "n",
	tokenstore.EventRekey:         "n",
	tokenstore.EventFrozen:        "w",
	tokenstore.EventThawed:        "n",
	tokenstore.EventWebhookLost:   "e",
	tokenstore.EventLost:          "e",
}

// notices are what can be said of a change, with their classes. They are shown
// by their name in the query `done`, so that nobody can make a page say
// something else.
var notices = map[string]string{
	"refreshed":     "ok",
	"enabled":       "ok",
	"disabled":      "ok",
	"reconnect":     "bad",
	"inactive":      "warn",
	"unrenewable":   "warn",
	"unavailable":   "warn",
	"revoked":       "ok",
	"pending":       "warn",
	"left":          "ok",
	"shared":        "ok",
	"nothing":       "ok",
	"deleted":       "ok",
	"deleted_later": "warn",
}

// notice is what became of a change. The zero value: there was none.
type notice struct{ Class, Head, Text string }

func noticeOf(l *ui.Lang, done string) notice {
	class, ok := notices[done]
	if !ok {
		return notice{}
	}
	n := notice{Class: class, Head: l.Say("done"), Text: l.Say("done." + done)}
	if class != "ok" {
		n.Head = l.Say("done." + class)
	}
	return n
}
