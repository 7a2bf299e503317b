package secret

import (
	"bytes"
	"encoding/gob"
	"encoding/json"
	"encoding/xml"
	"fmt"
	"html/template"
	"log/slog"
	"strings"
	"testing"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
)

const canary = "canary-7f3a"

func TestStringNeverLeaks(t *testing.T) {
	s := New(canary)
	type holder struct {
		Pub  String
		priv String
		list []String
		m    map[string]String
		ptr  *String
		any  any
	}
	h := holder{s, s, []String{s}, map[string]String{"a": s}, &s, s}
	for _, v := range []any{s, &s, h, &h, []any{s, h}, map[string]any{"k": h}, fmt.Errorf("wrap: %w", fmt.Errorf("%v", h))} {
		var out []string
		for verb := range strings.SplitSeq("v +v #v s q x X d b c o U e E f g t T p", " ") {
			out = append(out, fmt.Sprintf("%"+verb, v))
		}
		j, _ := json.Marshal(v)
		x, _ := xml.Marshal(v)
		var g, zb, sb, tb bytes.Buffer
		_ = gob.NewEncoder(&g).Encode(v)
		zl := zap.New(zapcore.NewCore(zapcore.NewJSONEncoder(zap.NewProductionEncoderConfig()), zapcore.AddSync(&zb), zapcore.DebugLevel))
		zl.Info("m", zap.Any("k", v), zap.Reflect("r", v))
		zl.Sugar().Infow("m", "k", v)
		slog.New(slog.NewTextHandler(&sb, nil)).Info("m", "k", v)
		slog.New(slog.NewJSONHandler(&sb, nil)).Info("m", "k", v)
		_ = template.Must(template.New("").Parse(`<a href="{{.}}">{{.}}</a>`)).Execute(&tb, v)
		out = append(out, string(j), string(x), g.String(), zb.String(), sb.String(), tb.String())
		for _, o := range out {
			if strings.Contains(o, canary) || strings.Contains(strings.ToLower(o), fmt.Sprintf("%x", canary)) {
				t.Errorf("%T leaked: %s", v, o)
			}
		}
	}
	if got := s.Reveal(); got != canary {
		t.Errorf("Reveal() = %q", got)
	}
}

func TestMAC(t *testing.T) {
	// RFC 4231 section 4.3, test case 2.
	got := fmt.Sprintf("%x", New("Jefe").MAC("what do ya want for nothing?"))
	if want := "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843"; got != want {
		t.Errorf("MAC() = %s, want %s", got, want)
	}
}

// TestEqual: the case A082. That the time tells nothing is seen by BenchmarkEqual.
func TestEqual(t *testing.T) {
	const key = "0123456789abcdefghijklmnopqrstuv"
	for i := range len(key) {
		wrong := key[:i] + "!" + key[i+1:]
		if New(key).Equal(New(wrong)) || New(key).Equal(New(key[:i])) {
			t.Errorf("%d right bytes are taken for all", i)
		}
	}
	if !New(key).Equal(New(key)) {
		t.Error("a key is not equal to itself")
	}
}

// BenchmarkEqual takes the same time however many bytes are right.
func BenchmarkEqual(b *testing.B) {
	key := strings.Repeat("k", 32)
	for _, right := range []int{0, 16, 31} {
		given := New(key[:right] + strings.Repeat("!", 32-right))
		b.Run(fmt.Sprintf("%d right", right), func(b *testing.B) {
			s := New(key)
			for b.Loop() {
				s.Equal(given)
			}
		})
	}
}
