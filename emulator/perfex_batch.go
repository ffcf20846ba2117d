package emulator

import (
	"encoding/json"
	"net/http"
)

// maxBatch is the most operations one call of the batch endpoint may carry.
const maxBatch = 50

func batchOperations(doc any) []any {
	envelope, _ := doc.(map[string]any)
	ops, _ := envelope["operations"].([]any)
	return ops
}

// batchID is the contact an operation names, or empty. 3.0.3 reads arguments
// only, although its documents write args (crm-apis A9).
func batchID(op any) string {
	o, _ := op.(map[string]any)
	args, _ := o["arguments"].(map[string]any)
	switch id := args["id"].(type) {
	case string:
		return canonical(id)
	case json.Number:
		return canonical(id.String())
	}
	return ""
}

// batch runs operations one after the other, without a transaction, and goes
// on after failures. It is laxer than PUT: no check of the e-mail, no filter
// of unknown fields, and success when nothing changed (crm-apis A9).
func (p *perfex) batch(cl *call, t *tx) reply {
	ops := batchOperations(cl.doc)
	if len(ops) == 0 || len(ops) > maxBatch {
		return jsonReply(http.StatusUnprocessableEntity, m{
			"status": false, "error": "validation_failed", "message": "operations must be an array of 1 to 50 items",
			"errors": m{"operations": "1 to 50 items"},
		})
	}
	results := make([]any, len(ops))
	completed, failed := 0, 0
	var rep reply
	for i, op := range ops {
		o, _ := op.(map[string]any)
		tool, _ := o["tool"].(string)
		result := m{"index": i, "tool": tool, "status": true}
		part, mails, problem := p.batchUpdate(cl, t, tool, o)
		if problem == "" {
			completed++
			result["result"] = m{"status": true, "record_id": atoi(part.Contact)}
		} else {
			failed++
			result["status"], result["error"] = false, problem
		}
		results[i] = result
		rep.parts = append(rep.parts, part)
		rep.mails = append(rep.mails, mails...)
	}
	answer := jsonReply(http.StatusOK, m{"status": failed == 0, "completed": completed, "failed": failed, "results": results})
	answer.parts, answer.mails = rep.parts, rep.mails
	return answer
}

func (p *perfex) batchUpdate(cl *call, t *tx, tool string, op map[string]any) (part Part, mails []Mail, problem string) {
	part.Contact = batchID(op)
	switch {
	case tool != "contacts_update":
		return part, nil, "Unknown tool"
	case !p.may("put"):
		return part, nil, "Permission denied"
	case part.Contact == "":
		return part, nil, "Missing argument: id"
	}
	args, _ := op["arguments"].(map[string]any)
	fields, _ := args["data"].(map[string]any)
	if len(fields) == 0 {
		return part, nil, "Missing argument: data"
	}
	id := atoi(part.Contact)
	rec, ok := t.get(id)
	if !ok {
		return part, nil, "Contact not found"
	}
	w := p.write(cl, t, id, rec, fields)
	part = t.commit(id)
	part.Unchanged = !w.failed && !w.changed
	return part, w.mails, ""
}
