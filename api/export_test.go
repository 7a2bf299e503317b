package api

// Routes returns "METHOD path" of every route.
func Routes() []string {
	all := []string{"GET " + livePath, "GET " + readyPath, "GET " + documentPath}
	for _, rt := range routes {
		all = append(all, rt.method+" "+rt.path)
	}
	return all
}
